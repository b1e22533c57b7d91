//! How the tasks that exist hang together: what became of those ahead of a task in its chain, whether a failure is its
//! own fault, and the clock of the chain as a whole. Pure.

use std::collections::HashMap;

use jiff::Timestamp;
use nixl_transfer_crds::{
    Reason, TransferTask,
    task::{SideState, status::TransferTaskStatus},
};

use crate::{
    cluster::Cluster,
    plan::{
        deadline,
        hop::{self, cause},
    },
};

/// What became of the tasks ahead of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ahead<'a> {
    /// It gets its data straight from the source, or from a node that has everything, or all ahead go on; or it needs them
    /// no more.
    Whole,
    /// A task ahead has ended without success, or is ending, or was never there; the node that received by it.
    Broken(&'a str),
}

/// Chains that exist, as far as one plan needs them.
pub struct Links<'a> {
    tasks: &'a [&'a TransferTask],
    cluster: &'a Cluster,
    /// By a task's name: what became of those ahead, and the first task of its chain.
    known: HashMap<&'a str, (Ahead<'a>, &'a str)>,
    /// By the name of a chain's first task.
    clocks: HashMap<&'a str, Clock>,
}

/// Since when a chain as a whole may be expected to move.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    /// Whether a hop of it, which goes on, is not ready yet.
    waits: bool,
    /// Last change of a half in it.
    changed: Option<Timestamp>,
}

fn name(task: &TransferTask) -> &str {
    task.metadata.name.as_deref().unwrap_or_default()
}

/// Whether the task goes on: nobody has asked it to end, and nothing of it has failed.
fn goes_on(task: &TransferTask) -> bool {
    let asked = task.spec.cancel || task.metadata.deletion_timestamp.is_some();
    !asked && cause::of(task).is_none() && hop::is_receiving(task)
}

/// Whether the task goes on by itself: all was sent to it, so it depends on nobody ahead any more.
fn needs_nobody(task: &TransferTask) -> bool {
    goes_on(task) && hop::was_sent(task)
}

/// What the task behind this one sees: this one, and what is ahead of it.
fn seen_past<'a>(task: &'a TransferTask, ahead: Ahead<'a>, cluster: &Cluster) -> Ahead<'a> {
    let target = &task.spec.target.node_name;
    if hop::has_succeeded(task) {
        Ahead::Whole
    } else if ahead == Ahead::Whole && (!goes_on(task) || cluster.is_gone(target)) {
        Ahead::Broken(target)
    } else {
        ahead
    }
}

impl<'a> Links<'a> {
    /// Of these tasks.
    pub fn of(tasks: &'a [&'a TransferTask], cluster: &'a Cluster) -> Self {
        let by_name: HashMap<&str, &TransferTask> = tasks.iter().map(|task| (name(task), *task)).collect();
        let mut known: HashMap<&'a str, (Ahead<'a>, &'a str)> = HashMap::new();
        for task in tasks {
            let mut way = Vec::new();
            let mut at = *task;
            let mut found = loop {
                if let Some((ahead, head)) = known.get(name(at)) {
                    break (seen_past(at, *ahead, cluster), *head);
                }
                // Names are hashes: a circle cannot be made, and must not hang us if someone makes one.
                if way.len() > tasks.len() {
                    break (Ahead::Broken(&at.spec.target.node_name), name(at));
                }
                way.push(at);
                let Some(relay) = &at.spec.source.relay else { break (Ahead::Whole, name(at)) };
                match by_name.get(relay.task_name.as_str()) {
                    Some(before) if before.spec.target.forward_to.as_deref() == Some(name(at)) => at = before,
                    _ => break (Ahead::Broken(&at.spec.source.node_name), name(at)),
                }
            };
            while let Some(on_the_way) = way.pop() {
                if needs_nobody(on_the_way) {
                    found.0 = Ahead::Whole;
                }
                known.insert(name(on_the_way), found);
                found.0 = seen_past(on_the_way, found.0, cluster);
            }
        }
        let mut clocks: HashMap<&str, Clock> = HashMap::new();
        for task in tasks {
            let Some((_, head)) = known.get(name(task)) else { continue };
            let clock = clocks.entry(head).or_default();
            clock.waits |= goes_on(task) && deadline::pending_until(task).is_some();
            clock.changed = clock.changed.max(deadline::last_transition(task));
        }
        Self { tasks, cluster, known, clocks }
    }

    /// The node at which the chain broke ahead of the task; absent when nothing ahead has ended without success, or the
    /// task goes on without them.
    pub fn broken_at(&self, task: &TransferTask) -> Option<&'a str> {
        match self.known.get(name(task)) {
            Some((Ahead::Broken(node), _)) => Some(node),
            _ => None,
        }
    }

    /// Whether the attempt ended only because one ahead of it did. What the receiving node itself has to say, other
    /// than that it lost its peer, is its own fault; what the sending node says is that of the node ahead.
    pub fn is_blameless(&self, task: &TransferTask) -> bool {
        let follows = |reason: Option<&str>| {
            let reason = reason.and_then(Reason::parse);
            matches!(reason, Some(Reason::PeerLost | Reason::WorkerLost | Reason::Cancelled))
        };
        let none = TransferTaskStatus::default();
        let status = task.status.as_ref().unwrap_or(&none);
        let target = status.target.as_ref().filter(|half| half.state == SideState::Failed);
        self.broken_at(task).is_some()
            && target.is_none_or(|half| follows(half.reason.as_deref()))
            && status.verdict.as_ref().is_none_or(|verdict| follows(Some(&verdict.reason)))
    }

    /// Whether others of the run, behind a break as this one is, have not ended yet and still can.
    pub fn others_are_ending(&self, task: &TransferTask) -> bool {
        self.tasks.iter().any(|other| {
            other.spec.run == task.spec.run
                && hop::is_receiving(other)
                && self.broken_at(other).is_some()
                && !self.cluster.is_gone(&other.spec.target.node_name)
        })
    }

    /// When the chain of the task last changed, or the task itself when it is in none. None while a hop of the chain is
    /// not ready: a chunk is stored by all or by none, so what one waits for, all wait for.
    pub fn moving_since(&self, task: &TransferTask) -> Option<Timestamp> {
        let (_, head) = self.known.get(name(task))?;
        let clock = self.clocks.get(head)?;
        if clock.waits { None } else { clock.changed }
    }
}
