//! Why an attempt failed: the root among what both agents and the operator say. Pure.

use std::fmt;

use nixl_transfer_crds::{
    FanOut, Reason, TransferTask,
    condition::shortened,
    reason::Class,
    task::{SideState, TransferTaskStatus},
};

use crate::plan::nodes::Block;

/// A reason with what happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// From the closed list.
    pub reason: Reason,
    /// What happened, and what to do.
    pub message: String,
}

impl Cause {
    /// A cause; the message is cut to what a status may hold.
    pub fn new(reason: Reason, message: String) -> Self {
        Self { reason, message: shortened(&message) }
    }

    /// Whether another attempt may succeed.
    pub fn is_retryable(&self) -> bool {
        self.reason.is_retryable() || self.reason == Reason::Cancelled
    }

    fn reported(reason: Option<&str>, message: Option<&str>, node: &str) -> Self {
        let named = reason.unwrap_or("no reason");
        let said = message.unwrap_or("its agent gave no message");
        match reason.and_then(Reason::parse) {
            Some(reason) => Self::new(reason, format!("node {node}: {said}")),
            // An agent newer than this operator: try again rather than give up over a word.
            None => Self::new(Reason::IoError, format!("node {node}: {named}: {said}")),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl From<Block> for Cause {
    fn from(block: Block) -> Self {
        Self::new(block.reason, block.message)
    }
}

/// Why the attempt failed; absent when it has not. What only follows from the other side's failure (a lost peer, a
/// cancellation) gives way to what caused it, and what is final goes before what may pass.
pub fn of(task: &TransferTask) -> Option<Cause> {
    let status = task.status.as_ref()?;
    let mut causes = Vec::new();
    if let Some(half) = status.target.as_ref().filter(|half| half.state == SideState::Failed) {
        let node = &task.spec.target.node_name;
        causes.push(Cause::reported(half.reason.as_deref(), half.message.as_deref(), node));
    }
    if let Some(half) = status.source.as_ref().filter(|half| half.state == SideState::Failed) {
        let node = &task.spec.source.node_name;
        causes.push(Cause::reported(half.reason.as_deref(), half.message.as_deref(), node));
    }
    if let Some(verdict) = &status.verdict {
        let reason = Reason::parse(&verdict.reason).unwrap_or(Reason::AgentNotReady);
        causes.push(Cause::new(reason, verdict.message.clone()));
    }
    let weight = |cause: &Cause| match cause.reason {
        Reason::PeerLost | Reason::Cancelled => 2,
        reason if reason.class() == Class::Final => 0,
        _ => 1,
    };
    causes.into_iter().min_by_key(weight)
}

/// What an attempt under way waits for, by what its agents say.
pub fn waits(task: &TransferTask) -> Option<Cause> {
    let status = task.status.as_ref()?;
    let target =
        status.target.as_ref().map(|half| (&half.reason, &half.message, &task.spec.target.node_name));
    let source =
        status.source.as_ref().map(|half| (&half.reason, &half.message, &task.spec.source.node_name));
    [target, source].into_iter().flatten().find_map(|(reason, message, node)| {
        let waiting = Reason::parse(reason.as_deref()?).filter(|reason| reason.class() == Class::Waiting);
        waiting.map(|_| Cause::reported(reason.as_deref(), message.as_deref(), node))
    })
}

/// What the receiving node waits for, when it is in a chain that waits with it.
pub fn holds_up(task: &TransferTask) -> Option<Cause> {
    let half = task.status.as_ref()?.target.as_ref()?;
    let reason = Reason::parse(half.reason.as_deref()?).filter(|reason| reason.class() == Class::Waiting)?;
    let waits = half.state < SideState::Prepared && task.spec.transport.fan_out == FanOut::Chain;
    let said = half.message.as_deref().unwrap_or("its agent gave no message");
    waits.then(|| Cause::new(reason, format!("node {}: {said}", task.spec.target.node_name)))
}

/// Whether the operator ended the attempt for something outside that it waits for: out of its chain, so that the others need
/// not wait with it, or because the region that received is gone. The attempt itself has not failed.
pub fn was_taken_out(task: &TransferTask) -> bool {
    let none = TransferTaskStatus::default();
    let status = task.status.as_ref().unwrap_or(&none);
    let verdict = status.verdict.as_ref().and_then(|verdict| Reason::parse(&verdict.reason));
    verdict.is_some_and(|reason| reason.class() == Class::Waiting && reason != Reason::AgentNotReady)
        && status.target.as_ref().is_none_or(|half| half.state != SideState::Failed)
}
