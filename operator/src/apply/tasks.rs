//! Writes to tasks: makes attempts, asks for their end, judges and deletes them. I/O.

use kube::{
    Api,
    api::{DeleteParams, ObjectMeta, Patch, PostParams, Preconditions},
};
use nixl_transfer_crds::{TransferTask, names::OPERATOR_MANAGER};
use serde_json::{Value, json};

use super::{is_conflict, is_missing, manager, writer::Writer};
use crate::{plan::TaskRef, world::Change};

pub(super) async fn create(
    task: &TransferTask,
    writer: &Writer,
) -> Result<Change<TransferTask>, kube::Error> {
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
pub(super) async fn ask(
    task: &TaskRef,
    wish: &str,
    writer: &Writer,
) -> Result<Change<TransferTask>, kube::Error> {
    patch(task, json!({"metadata": {"uid": task.uid}, "spec": {wish: true}}), writer, false).await
}

pub(super) async fn patch(
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

pub(super) async fn delete(task: &TaskRef, writer: &Writer) -> Result<Change<TransferTask>, kube::Error> {
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
