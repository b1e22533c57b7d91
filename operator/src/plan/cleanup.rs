//! Tasks that nobody needs any more: of older runs, of nodes that left, older attempts, of deleted jobs. The agents are
//! asked to end; the finalizer goes when both halves are terminal or their agents gone. And of hops that get no further
//! attempt: the agents are told that what they keep for one is not needed. Pure.

use jiff::Timestamp;
use nixl_transfer_crds::{TransferTask, job::TransferJobStatus, names::TASK_FINALIZER};

use super::{
    Action, Plan, TaskRef,
    hop::{self, State},
    nodes::Wanted,
    run,
};
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

/// Of earlier runs: the latest attempt of each hop that got nowhere is told that no other will come, then all go.
pub fn former(tasks: &[&TransferTask], cluster: &Cluster, actions: &mut Vec<Action>) {
    for task in tasks {
        if is_latest(task, tasks) {
            forsake(task, cluster, actions);
        } else {
            retire(&[task], cluster, actions);
        }
    }
}

/// Of the current run: hops that have been given up. Nothing is sure before the run has ended (a node may still come, a
/// limit be raised); then the next attempt starts from nothing.
///
/// What follows is given up as a whole by `activeDeadlineSeconds`, and is never over: `too_late`.
pub fn given_up(hops: &[Wanted<'_>], states: &[State], too_late: bool, actions: &mut Vec<Action>) {
    for (hop, state) in hops.iter().zip(states) {
        if let Some(task) = hop.latest
            && (too_late || matches!(state, State::Failed(_)))
        {
            discard(task, actions);
        }
    }
}

/// Whether no later attempt of its hop and run exists.
fn is_latest(task: &TransferTask, tasks: &[&TransferTask]) -> bool {
    let replaces = |other: &&TransferTask| {
        let (a, b) = (&other.spec.target, &task.spec.target);
        other.spec.run == task.spec.run
            && other.spec.attempt > task.spec.attempt
            && a.destination == b.destination
            && a.node_uid == b.node_uid
    };
    !tasks.iter().any(replaces)
}

/// Asks once to remove what is kept for a further attempt; says whether it did. One that is being deleted is told so by
/// that, and one that succeeded keeps nothing.
fn discard(task: &TransferTask, actions: &mut Vec<Action>) -> bool {
    let due = !task.spec.discard && task.metadata.deletion_timestamp.is_none() && !hop::has_succeeded(task);
    if due {
        actions.push(Action::Discard(TaskRef::of(task)));
    }
    due
}

/// Retires the last attempt of a hop; it is not deleted before its agent could read what to remove.
fn forsake(task: &TransferTask, cluster: &Cluster, actions: &mut Vec<Action>) {
    if discard(task, actions) && hop::is_over(task, cluster) {
        return;
    }
    retire(&[task], cluster, actions);
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
        if !kept && is_latest(task, tasks) {
            forsake(task, cluster, actions);
        } else if !kept {
            retire(&[task], cluster, actions);
        } else if task.metadata.deletion_timestamp.is_some() {
            release(task, cluster, actions);
        }
    }
}

/// When the run has ended: whatever still runs after a failure is cancelled, and what it has left is not needed; the
/// latest attempt of each hop stays as its record.
pub fn after_the_end(
    tasks: &[&TransferTask],
    status: &TransferJobStatus,
    cluster: &Cluster,
    now: Timestamp,
    plan: &mut Plan,
) {
    for task in tasks {
        if task.metadata.deletion_timestamp.is_some() || !is_latest(task, tasks) {
            retire(&[task], cluster, &mut plan.actions);
        } else if hop::has_succeeded(task) {
            hop::attend::release_source(task, now, plan);
        } else if run::has_failed(status) {
            discard(task, &mut plan.actions);
            if !task.spec.cancel && !hop::is_over(task, cluster) {
                plan.actions.push(Action::Cancel(TaskRef::of(task)));
            }
        }
    }
}
