//! Looks after an attempt that may still do something: the fence, the clocks, the verdict. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nixl_transfer_crds::{
    Reason, TransferTask,
    task::{SideState, status::Verdict},
};

use super::{
    Context, State,
    cause::{self, Cause},
    is_over, is_receiving, open_halves, sides, was_asked,
};
use crate::plan::{
    Action, Plan, TaskRef, deadline,
    nodes::{self, Block, Wanted},
};

/// How long the others of a chain wait for one that waits for something outside.
const PATIENCE_SECONDS: i64 = 10;

/// A source whose target has everything ends by itself; one that has not, long after, is asked to, or it would hold its
/// slot for ever.
pub fn release_source(task: &TransferTask, now: Timestamp, plan: &mut Plan) {
    if open_halves(task).is_empty() || was_asked(task) {
        return;
    }
    let until =
        deadline::after(deadline::last_transition(task).unwrap_or(now), deadline::ENDING_GRACE_SECONDS);
    if now < until {
        plan.wake(until);
    } else {
        end(task, plan);
    }
}

/// Looks after an attempt that may still do something. None when it is over and its end is on record.
pub fn under_way(
    hop: &Wanted<'_>,
    task: &TransferTask,
    context: &Context<'_>,
    plan: &mut Plan,
) -> Option<State> {
    let (input, now) = (context.input, context.now);
    let open = open_halves(task);
    let failed = cause::of(task);
    let asked = was_asked(task);
    if open.is_empty() {
        return None;
    }
    if failed.is_none() && !asked && context.halt.is_none() {
        let gone = |node: &&&str| input.cluster.is_gone(node);
        if let Some(node) = context.links.broken_at(task)
            && !input.cluster.is_gone(&task.spec.target.node_name)
        {
            // Its agents will find out; told at once, all behind the break end together and go on together.
            let message = format!("the chain broke ahead of this hop, at node {node}");
            return Some(judge(task, Reason::PeerLost, message, now, plan));
        }
        if let Some(node) = open.iter().rev().find(gone) {
            let message =
                format!("node {node}: its agent is gone: no change of its Lease, or the node was deleted");
            return Some(judge(task, Reason::AgentNotReady, message, now, plan));
        }
        if let Some(Block { reason, message }) = hop.missing.clone() {
            return Some(judge(task, reason, message, now, plan));
        }
    }
    if failed.is_some() || asked || context.halt.is_some() {
        end(task, plan);
        if is_over(task, input.cluster) {
            return None;
        }
        // The receiving worker has exited, so nothing of this attempt can land any more. The relay's half is not waited
        // for: its agent may be dead, and its Lease not yet old.
        if context.halt.is_none() && !is_receiving(task) && context.links.is_blameless(task) {
            return None;
        }
        let cause = failed.unwrap_or_else(|| {
            Cause::new(Reason::Cancelled, format!("attempt {} is being ended", task.spec.attempt))
        });
        if context.halt.is_some() {
            return Some(State::Ending(cause));
        }
        let resumed = context.status.clock.as_ref().and_then(|clock| clock.since.as_ref());
        let deleted = task.metadata.deletion_timestamp.as_ref();
        let times = [resumed, deleted].into_iter().flatten().map(|time| time.0);
        let began = times.chain(deadline::last_transition(task)).max().unwrap_or(now);
        let until = nodes::waiting_until(input, began);
        if now < until {
            plan.wake(until);
            return Some(State::Ending(cause));
        }
        let message = format!(
            "the agents on {} have not ended attempt {}: {cause}",
            open.join(" and "),
            task.spec.attempt
        );
        return Some(State::Failed(Cause::new(Reason::DeadlineExceeded, message)));
    }
    let (source, target) = sides(task);
    if [source, target].contains(&Some(SideState::Cancelled)) {
        let message = format!("an agent ended its half of attempt {} without being asked", task.spec.attempt);
        return Some(judge(task, Reason::WorkerLost, message, now, plan));
    }
    if let Some(cause) = cause::holds_up(task) {
        let until = deadline::after(deadline::target_transition(task).unwrap_or(now), PATIENCE_SECONDS);
        if now >= until {
            let message = format!("{}. It goes on waiting by itself, outside its chain", cause.message);
            return Some(judge(task, cause.reason, message, now, plan));
        }
        plan.wake(until);
    }
    let waits = cause::waits(task);
    if let Some(until) = deadline::pending_until(task) {
        if now >= until {
            let seconds = task.spec.deadlines.pending_seconds;
            let what =
                waits.map_or_else(|| "for the agents to get ready".into(), |cause| format!("for: {cause}"));
            let message = format!("waited {seconds} s (`spec.pendingDeadlineSeconds`) {what}");
            return Some(judge(task, Reason::DeadlineExceeded, message, now, plan));
        }
        plan.wake(until);
    }
    let still = input.memory.still_since(task.metadata.name.as_deref().unwrap_or_default());
    if let Some(until) = deadline::progress_until(task, still, context.links.moving_since(task)) {
        if now >= until {
            let message = format!(
                "no byte was moved for `spec.progressDeadlineSeconds` ({} s), and the agents did not say so",
                task.spec.deadlines.progress_seconds
            );
            return Some(judge(task, Reason::ProgressDeadlineExceeded, message, now, plan));
        }
        plan.wake(until);
    }
    let moving = source.max(target) >= Some(SideState::Active);
    Some(State::Active { moving, waits })
}

/// Ends an attempt for a reason that no agent could report.
fn judge(task: &TransferTask, reason: Reason, message: String, now: Timestamp, plan: &mut Plan) -> State {
    let cause = Cause::new(reason, message);
    let time = Time(deadline::whole_seconds(now));
    let verdict = Verdict { reason: reason.as_str().into(), message: cause.message.clone(), time };
    plan.actions.push(Action::Verdict(TaskRef::of(task), verdict));
    end(task, plan);
    State::Ending(cause)
}

/// Asks both agents to end the attempt, unless they were asked before.
fn end(task: &TransferTask, plan: &mut Plan) {
    if !was_asked(task) {
        plan.actions.push(Action::Cancel(TaskRef::of(task)));
    }
}
