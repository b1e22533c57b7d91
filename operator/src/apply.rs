//! Carries a plan out: the status first, then the tasks, events last. The only place that writes; it decides nothing.
//! What the API server answers goes back to the world before the plan counts as applied.

pub mod jobs;
pub mod patch;
pub mod writer;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};
use nixl_transfer_crds::{TransferJob, TransferTask, names::OPERATOR_MANAGER};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    control::Message,
    events::Events,
    plan::{Action, Note, TaskRef},
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
    let requests: Vec<_> = work.actions.iter().map(|action| act(action, work, writer, messages)).collect();
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
                tell(messages, Observation::Task(create(task, writer).await?)).await;
            }
            return Ok(());
        }
        Action::Cancel(task) => ask(task, "cancel", writer).await?,
        Action::Discard(task) => ask(task, "discard", writer).await?,
        Action::Verdict(task, verdict) => {
            patch(task, json!({"metadata": {"uid": task.uid}, "status": {"verdict": verdict}}), writer, true)
                .await?
        }
        Action::Release { task, resource_version, keep } => {
            let metadata = json!({"uid": task.uid, "resourceVersion": resource_version, "finalizers": keep});
            let change = patch(task, json!({"metadata": metadata}), writer, false).await?;
            match change {
                // Without a finalizer a deleted object is gone with this answer.
                Change::Put(released) if keep.is_empty() => Change::Gone(Box::new(released.metadata)),
                change => change,
            }
        }
        Action::Delete(task) => delete(task, writer).await?,
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

async fn create(task: &TransferTask, writer: &Writer) -> Result<Change<TransferTask>, kube::Error> {
    let tasks: Api<TransferTask> =
        Api::namespaced(writer.client(), task.metadata.namespace.as_deref().unwrap_or_default());
    let parameters = PostParams { field_manager: Some(OPERATOR_MANAGER.into()), ..PostParams::default() };
    match writer.write("TransferTask", "create", tasks.create(&parameters, task)).await {
        // Its name is a hash of all that makes it this attempt: we made it, and did not see the answer.
        Err(error) if is_conflict(&error) => {
            let name = task.metadata.name.as_deref().unwrap_or_default();
            writer.read(tasks.get(name)).await.map(Change::Put)
        }
        created => created.map(Change::Put),
    }
}

/// Sets one of the two wishes that a task's spec can still take.
async fn ask(task: &TaskRef, wish: &str, writer: &Writer) -> Result<Change<TransferTask>, kube::Error> {
    patch(task, json!({"metadata": {"uid": task.uid}, "spec": {wish: true}}), writer, false).await
}

async fn patch(
    task: &TaskRef,
    patch: Value,
    writer: &Writer,
    status: bool,
) -> Result<Change<TransferTask>, kube::Error> {
    let tasks: Api<TransferTask> = Api::namespaced(writer.client(), &task.namespace);
    let patch = Patch::Merge(patch);
    let parameters = manager();
    let result = if status {
        writer.write("TransferTask", "patch", tasks.patch_status(&task.name, &parameters, &patch)).await
    } else {
        writer.write("TransferTask", "patch", tasks.patch(&task.name, &parameters, &patch)).await
    };
    or_gone(task, result.map(Change::Put))
}

async fn delete(task: &TaskRef, writer: &Writer) -> Result<Change<TransferTask>, kube::Error> {
    let tasks: Api<TransferTask> = Api::namespaced(writer.client(), &task.namespace);
    let preconditions = Preconditions { uid: Some(task.uid.clone()), ..Preconditions::default() };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    let result = writer.write("TransferTask", "delete", tasks.delete(&task.name, &parameters)).await;
    let change = result.map(|deleted| deleted.either(Change::Put, |_| Change::Gone(Box::new(named(task)))));
    or_gone(task, change)
}

/// That a task is gone already is what a cancel, a release and a delete want.
fn or_gone(
    task: &TaskRef,
    result: Result<Change<TransferTask>, kube::Error>,
) -> Result<Change<TransferTask>, kube::Error> {
    match result {
        Err(error) if is_missing(&error) => Ok(Change::Gone(Box::new(named(task)))),
        result => result,
    }
}

/// Enough to say that a task is gone.
fn named(task: &TaskRef) -> ObjectMeta {
    ObjectMeta {
        name: Some(task.name.clone()),
        namespace: Some(task.namespace.clone()),
        uid: Some(task.uid.clone()),
        ..ObjectMeta::default()
    }
}
