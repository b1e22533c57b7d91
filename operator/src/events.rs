//! Publishes events of a job through events.k8s.io/v1, after the writes they tell of. An event that cannot be published
//! is logged and dropped: nothing rests on it. Not kube's `Recorder`: it keeps every event for six minutes and goes
//! through all of them at each new one, to count repetitions; ours are of runs and attempts, which have numbers.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use nixl_transfer_crds::{condition::shortened, names};

use crate::{leader::fence::Fence, plan::Note};

/// How long an event may take.
const WITHIN: Duration = Duration::from_secs(10);

/// Publishes events.
#[derive(Clone)]
pub struct Events {
    client: Client,
    fence: Fence,
}

impl Events {
    /// A publisher in the operator's name, as long as the fence lets it.
    pub fn new(client: Client, fence: Fence) -> Self {
        Self { client, fence }
    }

    /// Publishes one event about the job.
    pub async fn publish(&self, job: &ObjectReference, note: &Note) {
        if !self.fence.may_write() {
            return;
        }
        let event = event(job, note, Timestamp::now());
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let parameters = PostParams::default();
        let reason = event.reason.as_deref();
        match tokio::time::timeout(WITHIN, events.create(&parameters, &event)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(job = job.name, reason, %error, "event dropped"),
            Err(_) => tracing::warn!(job = job.name, reason, "event dropped: no answer in time"),
        }
    }
}

/// The event of a note. Its name has the time in it, so that no two are one.
fn event(job: &ObjectReference, note: &Note, now: Timestamp) -> Event {
    let task = note.task.as_ref().map(|name| ObjectReference {
        api_version: job.api_version.clone(),
        kind: Some("TransferTask".into()),
        namespace: job.namespace.clone(),
        name: Some(name.clone()),
        ..ObjectReference::default()
    });
    let name = job.name.as_deref().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", now.as_nanosecond())),
            namespace: job.namespace.clone(),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.into()),
        reason: Some(note.reason.as_str().into()),
        action: Some(note.action.into()),
        note: Some(shortened(&note.message)),
        regarding: Some(job.clone()),
        related: task,
        reporting_controller: Some(names::OPERATOR_MANAGER.into()),
        reporting_instance: Some(names::OPERATOR_MANAGER.into()),
        ..Event::default()
    }
}
