//! Tasks that nobody needs any more: of older runs, of nodes that left, older attempts, of deleted jobs. The agents are
//! asked to end; the finalizer goes when both halves are terminal or their agents gone. Pure.

use jiff::Timestamp;
use nixl_transfer_crds::{TransferTask, job::TransferJobStatus, names::TASK_FINALIZER};

use super::{Action, Plan, TaskRef, hop, nodes::Wanted, run};
use crate::cluster::Cluster;

/// Of a job that is gone: deletes every task, which asks the agents to end, and releases those that are over.
pub fn orphaned(tasks: &[&TransferTask], cluster: &Cluster, actions: &mut Vec<Action>) {
    for task in tasks {
        if task.metadata.deletion_timestamp.is_none() {
            actions.push(Action::Delete(TaskRef::of(task)));
        } else {
            release(task, cluster, actions);
        }
    }
}

/// Of a job that goes on without them: cancels the tasks, deletes those that are over, releases those deleted.
pub fn retire(tasks: &[&TransferTask], cluster: &Cluster, actions: &mut Vec<Action>) {
    for task in tasks {
        if task.metadata.deletion_timestamp.is_some() {
            release(task, cluster, actions);
        } else if hop::is_over(task, cluster) {
            actions.push(Action::Delete(TaskRef::of(task)));
        } else if !task.spec.cancel {
            actions.push(Action::Cancel(TaskRef::of(task)));
        }
    }
}

/// Removes the finalizer of a deleted task that is over.
fn release(task: &TransferTask, cluster: &Cluster, actions: &mut Vec<Action>) {
    let finalizers = task.metadata.finalizers.as_deref().unwrap_or_default();
    if finalizers.iter().any(|finalizer| finalizer == TASK_FINALIZER) && hop::is_over(task, cluster) {
        actions.push(Action::Release {
            task: TaskRef::of(task),
            resource_version: task.metadata.resource_version.clone().unwrap_or_default(),
            keep: finalizers.iter().filter(|finalizer| *finalizer != TASK_FINALIZER).cloned().collect(),
        });
    }
}

/// Of the current run: retires attempts that a newer one has replaced and tasks of nodes that are wanted no more, and
/// releases what a user deleted by hand.
pub fn superseded(
    tasks: &[&TransferTask],
    wanted: &[Wanted<'_>],
    cluster: &Cluster,
    actions: &mut Vec<Action>,
) {
    for task in tasks {
        let kept = wanted
            .iter()
            .any(|hop| hop.latest.is_some_and(|latest| latest.metadata.name == task.metadata.name));
        if !kept {
            retire(&[task], cluster, actions);
        } else if task.metadata.deletion_timestamp.is_some() {
            release(task, cluster, actions);
        }
    }
}

/// When the run has ended: whatever still runs after a failure is cancelled; the latest attempt of each hop stays as its
/// record.
pub fn after_the_end(
    tasks: &[&TransferTask],
    status: &TransferJobStatus,
    cluster: &Cluster,
    now: Timestamp,
    plan: &mut Plan,
) {
    for task in tasks {
        let replaces = |other: &&TransferTask| {
            let (a, b) = (&other.spec.target, &task.spec.target);
            other.spec.attempt > task.spec.attempt
                && a.destination == b.destination
                && a.node_uid == b.node_uid
        };
        if task.metadata.deletion_timestamp.is_some() || tasks.iter().any(replaces) {
            retire(&[task], cluster, &mut plan.actions);
        } else if hop::has_succeeded(task) {
            hop::attend::release_source(task, now, plan);
        } else if run::has_failed(status) && !task.spec.cancel && !hop::is_over(task, cluster) {
            plan.actions.push(Action::Cancel(TaskRef::of(task)));
        }
    }
}
