//! Publishes events of a job through events.k8s.io/v1, after the writes they tell of. An event that cannot be published
//! is logged and dropped: nothing rests on it.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use nixl_transfer_crds::{condition::shortened, names};

use crate::plan::Note;

/// How long an event may take.
const WITHIN: Duration = Duration::from_secs(10);

/// Publishes events.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// A publisher in the operator's name.
    pub fn new(client: Client) -> Self {
        let reporter = Reporter { controller: names::OPERATOR_MANAGER.into(), instance: None };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Publishes one event about the job.
    pub async fn publish(&self, job: &ObjectReference, note: &Note) {
        let task = note.task.as_ref().map(|name| ObjectReference {
            api_version: job.api_version.clone(),
            kind: Some("TransferTask".into()),
            namespace: job.namespace.clone(),
            name: Some(name.clone()),
            ..ObjectReference::default()
        });
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.as_str().into(),
            note: Some(shortened(&note.message)),
            action: note.action.into(),
            secondary: task,
        };
        match tokio::time::timeout(WITHIN, self.recorder.publish(&event, job)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(job = job.name, reason = event.reason, %error, "event dropped"),
            Err(_) => {
                tracing::warn!(job = job.name, reason = event.reason, "event dropped: no answer in time")
            }
        }
    }
}
