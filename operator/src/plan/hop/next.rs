//! What follows an attempt that is over, or comes first: its number, what it counts, and when. Pure.

use jiff::Timestamp;
use nixl_transfer_crds::{Reason, TransferTask, condition};

use super::{
    Context, State,
    cause::{self, Cause},
    was_asked,
};
use crate::plan::{Plan, backoff, deadline, nodes::Wanted};

/// How many attempts of a hop may end without being counted before one that is not at fault counts, too. Those that were
/// suspended are among them: `spec.attempt` less `spec.failures` is what is known after a restart.
const FREE_ATTEMPTS: i32 = 8;
/// How long hops behind a break wait for each other, so that they are one chain again.
const GATHER_SECONDS: i64 = 5;

/// What the next attempt is, and since when it is waited for.
#[derive(Clone, Debug)]
pub struct Next {
    /// Counted from 0.
    pub attempt: i32,
    /// Attempts before it that count as failed.
    pub failures: i32,
    /// Since when it is waited for.
    pub since: Timestamp,
    /// What the one before it failed with.
    pub after: Option<Cause>,
    /// Whether it may be part of a chain.
    pub chain: bool,
}

/// The first attempt of a hop.
pub fn first(hop: &Wanted<'_>, context: &Context<'_>) -> Next {
    let start = wanted_since(hop, context);
    let queued = context.input.memory.queued_until(&hop.destination.name, &hop.node);
    Next {
        attempt: 0,
        failures: 0,
        since: queued.map_or(start, |queued| queued.max(start)),
        after: None,
        chain: true,
    }
}

/// Since when the hop is wanted: since the run began; with `follow` a node may have come later, or may match only since all
/// others had been served, and does not pay for the time before. Both stand in the API.
fn wanted_since(hop: &Wanted<'_>, context: &Context<'_>) -> Timestamp {
    let clock = context.status.clock.clone().unwrap_or_default();
    let start = deadline::effective_start(&clock).unwrap_or(context.now);
    if !context.input.job.spec.follow {
        return start;
    }
    let conditions = &context.status.conditions;
    let ready = condition::find(conditions, condition::READY);
    let fell_behind = match ready.filter(|_| condition::is_true(conditions, condition::COMPLETE)) {
        Some(ready) if ready.status == "True" => context.now,
        Some(ready) => ready.last_transition_time.0,
        None => start,
    };
    let created = context.input.cluster.nodes.get(&hop.node).and_then(|view| view.created);
    start.max(fell_behind).max(created.unwrap_or(start))
}

/// What follows an attempt that succeeded, into a region that was made again since: another one, into the new region.
pub fn elsewhere(task: &TransferTask, hop: &Wanted<'_>, context: &Context<'_>) -> Next {
    let ended = deadline::last_transition(task).unwrap_or(context.now);
    let created = hop.region.and_then(|region| region.created).unwrap_or(ended);
    let (attempt, failures) = (task.spec.attempt + 1, task.spec.failures);
    Next { attempt, failures, since: ended.max(created), after: None, chain: true }
}

/// What follows an attempt that is over and did not succeed; a state when nothing does yet, or ever.
pub fn after(task: &TransferTask, context: &Context<'_>, plan: &mut Plan) -> Result<Next, State> {
    let (input, now) = (context.input, context.now);
    let ended = deadline::last_transition(task).unwrap_or(now);
    let resumed =
        context.status.clock.as_ref().and_then(|clock| clock.since.as_ref()).map_or(ended, |at| at.0);
    let asked = was_asked(task);
    let limit = input.job.spec.backoff_limit;
    let cause = match cause::of(task) {
        Some(cause) => cause,
        // Ended on request: no failure, unless the limit was lowered meanwhile.
        None if asked && task.spec.failures > limit => {
            let cause = Cause::new(Reason::Cancelled, "a cancellation".into());
            return Err(exhausted(task.spec.failures, limit, &cause));
        }
        None if asked => {
            return Ok(Next {
                attempt: task.spec.attempt + 1,
                failures: task.spec.failures,
                since: ended.max(resumed),
                after: None,
                chain: may_depend(task.spec.failures, limit),
            });
        }
        None => Cause::new(Reason::WorkerLost, "the agents ended the attempt without being asked".into()),
    };
    if cause::was_taken_out(task) {
        return uncounted(task, cause, ended.max(resumed), false, context);
    }
    let free = task.spec.attempt - task.spec.failures < FREE_ATTEMPTS;
    if free && context.links.is_blameless(task) {
        return blameless(task, cause, ended.max(resumed), context, plan);
    }
    if !cause.is_retryable() {
        return Err(State::Failed(cause));
    }
    let failures = task.spec.failures + 1;
    if failures > limit {
        return Err(exhausted(failures, limit, &cause));
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
    Ok(Next {
        attempt: task.spec.attempt + 1,
        failures,
        since,
        after: Some(cause),
        chain: may_depend(failures, limit),
    })
}

fn exhausted(failures: i32, limit: i32, last: &Cause) -> State {
    let message = format!("{failures} attempts failed (`spec.backoffLimit` {limit}), the last with {last}");
    State::Failed(Cause::new(Reason::BackoffLimitExceeded, message))
}

/// Whether an attempt may get its data through other nodes. The last one that `spec.backoffLimit` allows may not: nobody is
/// given up for what another node did.
fn may_depend(failures: i32, limit: i32) -> bool {
    failures == 0 || failures < limit
}

/// What follows an attempt that ended only because one ahead of it in the chain did: another one, not counted and without
/// a pause, as soon as the others behind the break can be in its chain.
fn blameless(
    task: &TransferTask,
    cause: Cause,
    ended: Timestamp,
    context: &Context<'_>,
    plan: &mut Plan,
) -> Result<Next, State> {
    let until = deadline::after(ended, GATHER_SECONDS);
    if context.now < until && context.links.others_are_ending(task) {
        plan.wake(until);
        return Err(State::Ending(cause));
    }
    let chain = may_depend(task.spec.failures, context.input.job.spec.backoff_limit);
    uncounted(task, cause, ended, chain, context)
}

/// Another attempt at once, unless the limit was lowered meanwhile.
fn uncounted(
    task: &TransferTask,
    cause: Cause,
    ended: Timestamp,
    chain: bool,
    context: &Context<'_>,
) -> Result<Next, State> {
    let (failures, limit) = (task.spec.failures, context.input.job.spec.backoff_limit);
    if failures > limit {
        return Err(exhausted(failures, limit, &cause));
    }
    let target = &task.spec.target;
    let queued = context.input.memory.queued_until(&target.destination, &target.node_name);
    let since = ended.max(queued.unwrap_or(ended));
    Ok(Next { attempt: task.spec.attempt + 1, failures, since, after: Some(cause), chain })
}
