//! What became of one hop, and what comes next: the state of its latest attempt, the fence, the verdict, the next
//! attempt. Pure. The attempt that is built here is in `hop::task`.

pub mod cause;
pub mod task;

use std::collections::BTreeMap;

use jiff::Timestamp;
use nixl_transfer_crds::{
    Reason, TransferTask,
    job::TransferJobStatus,
    task::{SideState, status::Verdict},
};

use super::{
    Action, Input, Note, Plan, TaskRef, backoff, deadline,
    nodes::{self, Block, Chosen, Wanted},
    path::Overlap,
    run::Halt,
};
use crate::cluster::Cluster;
use cause::Cause;

/// What all hops of a job are decided with.
pub struct Context<'a> {
    /// The input of the plan.
    pub input: &'a Input<'a>,
    /// The status as it will be: run, source, clock.
    pub status: &'a TransferJobStatus,
    /// The source, or what stands in its way.
    pub source: &'a Result<Chosen, Block>,
    /// Whether the run is being stopped.
    pub halt: Option<Halt>,
    /// Slots that this plan has taken already.
    pub taken: BTreeMap<String, u32>,
    /// The time.
    pub now: Timestamp,
}

/// What became of a hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The target reported success.
    Succeeded,
    /// The node is the source itself: it has the data.
    Served,
    /// Given up.
    Failed(Cause),
    /// An attempt is under way.
    Active {
        /// Whether bytes move.
        moving: bool,
        /// What an agent waits for, by what it says.
        waits: Option<Cause>,
    },
    /// An attempt was given up or is to be stopped, and an agent has not ended its half yet.
    Ending(Cause),
    /// The last attempt failed.
    Backoff {
        /// When the next one comes.
        until: Timestamp,
        /// Why the last one failed.
        cause: Cause,
    },
    /// Waits for a transfer slot.
    Queued {
        /// The node whose slots are taken.
        node: String,
    },
    /// Waits for something that is missing.
    Waiting(Cause),
    /// Nothing is under way, and nothing is to be.
    Stopped,
}

impl State {
    /// Whether an attempt uses its nodes.
    pub fn is_active(&self) -> bool {
        matches!(self, State::Active { .. } | State::Ending(_))
    }

    /// Whether the node has the data.
    pub fn is_served(&self) -> bool {
        matches!(self, State::Succeeded | State::Served)
    }
}

fn sides(task: &TransferTask) -> (Option<SideState>, Option<SideState>) {
    let status = task.status.as_ref();
    (
        status.and_then(|status| status.source.as_ref()).map(|half| half.state),
        status.and_then(|status| status.target.as_ref()).map(|half| half.state),
    )
}

/// Whether the target has everything, verified. That alone decides.
pub fn has_succeeded(task: &TransferTask) -> bool {
    sides(task).1 == Some(SideState::Succeeded)
}

/// Whether nothing of the task can still happen: each half is terminal, or its agent gone.
pub fn is_over(task: &TransferTask, cluster: &Cluster) -> bool {
    open_halves(task).iter().all(|node| cluster.is_gone(node))
}

/// Nodes of the halves that are not terminal.
fn open_halves(task: &TransferTask) -> Vec<&str> {
    let (source, target) = sides(task);
    let open = |state: Option<SideState>| !state.is_some_and(SideState::is_terminal);
    let nodes = [(source, &task.spec.source.node_name), (target, &task.spec.target.node_name)];
    nodes.into_iter().filter(|(state, _)| open(*state)).map(|(_, node)| node.as_str()).collect()
}

/// A source whose target has everything ends by itself; one that has not, long after, is asked to, or it would hold its
/// slot for ever.
pub fn release_source(task: &TransferTask, now: Timestamp, plan: &mut Plan) {
    if open_halves(task).is_empty() || task.spec.cancel || task.metadata.deletion_timestamp.is_some() {
        return;
    }
    let until =
        deadline::after(deadline::last_transition(task).unwrap_or(now), deadline::ENDING_GRACE_SECONDS);
    if now < until {
        plan.wake(until);
    } else {
        plan.actions.push(Action::Cancel(TaskRef::of(task)));
    }
}

/// What the next attempt is, and since when it is waited for.
struct Next {
    attempt: i32,
    failures: i32,
    since: Timestamp,
    after: Option<Cause>,
}

/// Decides about one hop; what is to be written goes into the plan.
pub fn decide(hop: &Wanted<'_>, context: &mut Context<'_>, plan: &mut Plan) -> State {
    if let Some(task) = hop.latest {
        if has_succeeded(task) {
            release_source(task, context.now, plan);
            return State::Succeeded;
        }
        if let Some(state) = under_way(task, context, plan) {
            return state;
        }
    }
    if context.halt.is_some() {
        return State::Stopped;
    }
    let source = context.input.job.spec.source.node.name.as_deref();
    let source = source.or(context.status.source.as_ref().map(|source| source.node.as_str()));
    match nodes::endpoint(context.input, source, hop) {
        Overlap::Apart => {}
        Overlap::Same if hop.among_others => return State::Served,
        how => return State::Failed(nodes::same_endpoint(hop, how).into()),
    }
    let next = match hop.latest {
        None => first(hop, context),
        Some(task) => match next_after(task, context, plan) {
            Ok(next) => next,
            Err(state) => return state,
        },
    };
    start(hop, next, context, plan)
}

/// Looks after an attempt that may still do something. None when it is over and its end is on record.
fn under_way(task: &TransferTask, context: &Context<'_>, plan: &mut Plan) -> Option<State> {
    let (input, now) = (context.input, context.now);
    let open = open_halves(task);
    let failed = cause::of(task);
    let asked = task.spec.cancel || task.metadata.deletion_timestamp.is_some();
    let cancel = |plan: &mut Plan| {
        if !asked {
            plan.actions.push(Action::Cancel(TaskRef::of(task)));
        }
    };
    if open.is_empty() {
        return None;
    }
    if let Some(node) = open.iter().find(|node| input.cluster.is_gone(node))
        && failed.is_none()
        && !asked
        && context.halt.is_none()
    {
        let message =
            format!("node {node}: its agent is gone: no change of its Lease, or the node was deleted");
        return Some(judge(task, Reason::AgentNotReady, message, now, plan));
    }
    if failed.is_some() || asked || context.halt.is_some() {
        cancel(plan);
        if is_over(task, input.cluster) {
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
    if let Some(until) = deadline::progress_until(task, still) {
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
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(deadline::whole_seconds(now));
    let verdict = Verdict { reason: reason.as_str().into(), message: cause.message.clone(), time };
    plan.actions.push(Action::Verdict(TaskRef::of(task), verdict));
    if !task.spec.cancel {
        plan.actions.push(Action::Cancel(TaskRef::of(task)));
    }
    State::Ending(cause)
}

/// The first attempt of a hop.
fn first(hop: &Wanted<'_>, context: &Context<'_>) -> Next {
    let clock = context.status.clock.clone().unwrap_or_default();
    let start = deadline::effective_start(&clock).unwrap_or(context.now);
    let queued = context.input.memory.queued_until(&hop.destination.name, &hop.node);
    Next { attempt: 0, failures: 0, since: queued.map_or(start, |queued| queued.max(start)), after: None }
}

/// What follows an attempt that is over and did not succeed; a state when nothing does yet, or ever.
fn next_after(task: &TransferTask, context: &Context<'_>, plan: &mut Plan) -> Result<Next, State> {
    let (input, now) = (context.input, context.now);
    let ended = deadline::last_transition(task).unwrap_or(now);
    let resumed =
        context.status.clock.as_ref().and_then(|clock| clock.since.as_ref()).map_or(ended, |at| at.0);
    let asked = task.spec.cancel || task.metadata.deletion_timestamp.is_some();
    let limit = input.job.spec.backoff_limit;
    let exhausted = |failures: i32, last: &Cause| {
        let message =
            format!("{failures} attempts failed (`spec.backoffLimit` {limit}), the last with {last}");
        State::Failed(Cause::new(Reason::BackoffLimitExceeded, message))
    };
    let cause = match cause::of(task) {
        Some(cause) => cause,
        // Ended on request: no failure, unless the limit was lowered meanwhile.
        None if asked && task.spec.failures > limit => {
            let cause = Cause::new(Reason::Cancelled, "a cancellation".into());
            return Err(exhausted(task.spec.failures, &cause));
        }
        None if asked => {
            return Ok(Next {
                attempt: task.spec.attempt + 1,
                failures: task.spec.failures,
                since: ended.max(resumed),
                after: None,
            });
        }
        None => Cause::new(Reason::WorkerLost, "the agents ended the attempt without being asked".into()),
    };
    if !cause.is_retryable() {
        return Err(State::Failed(cause));
    }
    let failures = task.spec.failures + 1;
    if failures > limit {
        return Err(exhausted(failures, &cause));
    }
    let pause =
        backoff::pause(failures, input.backoff_base, task.metadata.name.as_deref().unwrap_or_default());
    let until = ended.checked_add(pause).unwrap_or(Timestamp::MAX);
    if now < until {
        plan.wake(until);
        return Err(State::Backoff { until, cause });
    }
    let queued = input.memory.queued_until(&task.spec.target.destination, &task.spec.target.node_name);
    let since = until.max(resumed).max(queued.unwrap_or(until));
    Ok(Next { attempt: task.spec.attempt + 1, failures, since, after: Some(cause) })
}

/// Starts an attempt, or says what stands in the way.
fn start(hop: &Wanted<'_>, next: Next, context: &mut Context<'_>, plan: &mut Plan) -> State {
    let input = context.input;
    let gate = || -> Result<(&Chosen, String), Block> {
        task::check(input.job)?;
        let target = nodes::target(input, hop);
        // What is final on the receiving side is said at once, whatever the source waits for.
        if let Err(block) = &target
            && block.is_final()
        {
            return Err(block.clone());
        }
        let source = context.source.as_ref().map_err(Clone::clone)?;
        let target = target?;
        match nodes::unfinished_before(input, context.status.run, &source.node, hop) {
            Some(block) => Err(block),
            None => Ok((source, target)),
        }
    };
    let (source, instance) = match gate() {
        Ok(ready) => ready,
        Err(block) if block.is_final() => return State::Failed(block.into()),
        Err(block) => {
            let until = nodes::waiting_until(input, next.since);
            if context.now < until {
                plan.wake(until);
                return State::Waiting(block.into());
            }
            let seconds = input.job.spec.pending_deadline_seconds;
            let message = format!(
                "waited {seconds} s (`spec.pendingDeadlineSeconds`): {}: {}",
                block.reason, block.message
            );
            return State::Failed(Cause::new(Reason::DeadlineExceeded, message));
        }
    };
    if let Some(node) = nodes::full(input, &source.node, hop, &context.taken) {
        plan.blocked_on.push(node.clone());
        plan.queued.push((hop.destination.name.clone(), hop.node.clone()));
        return State::Queued { node };
    }
    let task =
        task::build(input.job, context.status.run, hop, source, &instance, next.attempt, next.failures);
    for node in [&source.node, &hop.node] {
        *context.taken.entry(node.clone()).or_default() += 1;
    }
    if let Some(cause) = next.after {
        plan.notes.push(Note {
            reason: Reason::Retrying,
            action: "RetryHop",
            message: format!(
                "{} on {}: attempt {} after {cause}",
                hop.destination.name, hop.node, next.attempt
            ),
            warning: true,
            task: task.metadata.name.clone(),
        });
    }
    plan.actions.push(Action::Create(Box::new(task)));
    State::Active { moving: false, waits: None }
}
