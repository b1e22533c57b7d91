//! Carries a plan out: the status first, then the tasks, events last. The only place that writes; it decides nothing.
//! What the API server answers goes back to the world before the plan counts as applied.

pub mod jobs;
pub mod nodes;
pub mod patch;
pub mod tasks;
pub mod writer;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use nixl_transfer_crds::{TransferJob, names::OPERATOR_MANAGER};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    control::Message,
    events::Events,
    plan::{Action, Note},
    world::{Change, Observation},
};
use writer::Writer;

/// Tasks of one job that are written at once.
const AT_ONCE: usize = 8;

/// What is to be written for one job.
pub struct Work {
    /// UID of the job; what the plan is filed under.
    pub unit: String,
    /// The job as the plan saw it; absent when it is gone.
    pub job: Option<ObjectReference>,
    /// Merge patch of the job with its status.
    pub status: Option<Value>,
    /// Writes to all else.
    pub actions: Vec<Action>,
    /// Events.
    pub notes: Vec<Note>,
    /// Namespace and name of a job that no watch shows: its tasks are deleted only if the API server agrees.
    pub vanished: Option<(String, String)>,
}

/// What became of the writes.
#[derive(Debug)]
pub struct Applied {
    /// UID of the job.
    pub unit: String,
    /// Whether the status was written.
    pub status_written: bool,
    /// Nodes on which slots had been reserved.
    pub reserved: Vec<String>,
    /// The first failure.
    pub error: Option<kube::Error>,
}

/// The API server refused because something has changed since we looked.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Writes, reports, publishes.
pub async fn apply(
    work: Work,
    writer: Writer,
    events: Events,
    messages: mpsc::Sender<Message>,
    reserved: Vec<String>,
) {
    let mut applied = Applied { unit: work.unit.clone(), status_written: false, reserved, error: None };
    let result = write(&work, &writer, &messages, &mut applied.status_written).await;
    applied.error = result.err();
    let succeeded = applied.error.is_none();
    // The receiver is gone only when the operator stops.
    let _ = messages.send(Message::Applied(Box::new(applied))).await;
    if let Some(job) = work.job.filter(|_| succeeded) {
        for note in work.notes.iter().filter(|note| note.news) {
            events.publish(&job, note).await;
        }
    }
}

async fn write(
    work: &Work,
    writer: &Writer,
    messages: &mpsc::Sender<Message>,
    status_written: &mut bool,
) -> Result<(), kube::Error> {
    if let Some((namespace, name)) = &work.vanished {
        let jobs: Api<TransferJob> = Api::namespaced(writer.client(), namespace);
        if let Some(job) = writer.read(jobs.get_opt(name)).await?
            && job.metadata.uid.as_deref() == Some(&work.unit)
        {
            tell(messages, Observation::Job(Change::Put(job))).await;
            return Ok(());
        }
    }
    if let (Some(job), Some(patch)) = (&work.job, &work.status) {
        let namespace = job.namespace.as_deref().unwrap_or_default();
        let name = job.name.as_deref().unwrap_or_default();
        let jobs: Api<TransferJob> = Api::namespaced(writer.client(), namespace);
        let patched = writer
            .write("TransferJob", "patch", jobs.patch_status(name, &manager(), &Patch::Merge(patch)))
            .await?;
        *status_written = true;
        tell(messages, Observation::Job(Change::Put(patched))).await;
    }
    // A node loses its label before anything begins there that makes it untrue.
    let unlabels = |action: &&Action| matches!(action, Action::Label(label) if !label.holds);
    let (before, rest): (Vec<_>, Vec<_>) = work.actions.iter().partition(unlabels);
    for actions in [before, rest] {
        all(&actions, work, writer, messages).await?;
    }
    Ok(())
}

/// Carries out the actions, some at once; the first failure counts.
async fn all(
    actions: &[&Action],
    work: &Work,
    writer: &Writer,
    messages: &mpsc::Sender<Message>,
) -> Result<(), kube::Error> {
    let requests: Vec<_> = actions.iter().map(|action| act(action, work, writer, messages)).collect();
    let mut results = stream::iter(requests).buffer_unordered(AT_ONCE);
    let mut first = Ok(());
    while let Some(result) = results.next().await {
        if first.is_ok() {
            first = result;
        }
    }
    first
}

fn manager() -> PatchParams {
    PatchParams { field_manager: Some(OPERATOR_MANAGER.into()), ..PatchParams::default() }
}

async fn tell(messages: &mpsc::Sender<Message>, observation: Observation) {
    // The receiver is gone only when the operator stops.
    let _ = messages.send(Message::Answered(Box::new(observation))).await;
}

async fn act(
    action: &Action,
    work: &Work,
    writer: &Writer,
    messages: &mpsc::Sender<Message>,
) -> Result<(), kube::Error> {
    let change = match action {
        Action::Create(attempts) => {
            for task in attempts {
                tell(messages, Observation::Task(tasks::create(task, writer).await?)).await;
            }
            return Ok(());
        }
        Action::Cancel(task) => tasks::ask(task, "cancel", writer).await?,
        Action::Discard(task) => tasks::ask(task, "discard", writer).await?,
        Action::Verdict(task, verdict) => {
            tasks::patch(
                task,
                json!({"metadata": {"uid": task.uid}, "status": {"verdict": verdict}}),
                writer,
                true,
            )
            .await?
        }
        Action::Release { task, resource_version, keep } => {
            let metadata = json!({"uid": task.uid, "resourceVersion": resource_version, "finalizers": keep});
            let change = tasks::patch(task, json!({"metadata": metadata}), writer, false).await?;
            match change {
                // Without a finalizer a deleted object is gone with this answer.
                Change::Put(released) if keep.is_empty() => Change::Gone(Box::new(released.metadata)),
                change => change,
            }
        }
        Action::Delete(task) => tasks::delete(task, writer).await?,
        Action::Label(label) => {
            if let Some(change) = nodes::label(label, writer).await? {
                tell(messages, Observation::Node(change)).await;
            }
            return Ok(());
        }
        Action::Expire { resource_version } => {
            if let Some(job) = &work.job {
                let change = jobs::expire(job, resource_version, writer).await?;
                tell(messages, Observation::Job(change)).await;
            }
            return Ok(());
        }
    };
    tell(messages, Observation::Task(change)).await;
    Ok(())
}
