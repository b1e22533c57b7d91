//! Starts the attempts that can start now: what stands in the way of each, the slots, the tasks. Pure.

use nixl_transfer_crds::{Reason, TransferTask};

use super::{
    Action, Note, Plan,
    chain::{self, Candidate},
    hop::{Context, Decision, State, cause::Cause, next::Next, task},
    ledger::Ledger,
    nodes::{self, Block, Chosen, Receiving, Wanted},
};

/// An attempt with nothing in its way but, perhaps, slots.
pub struct Ready {
    /// What it is.
    pub next: Next,
    /// The receiving end.
    pub to: Receiving,
}

/// Asks whether the attempt can start; else what it waits for, and whether it still may.
pub fn gate(hop: &Wanted<'_>, next: Next, context: &Context<'_>, plan: &mut Plan) -> Result<Ready, State> {
    match blocked(hop, context) {
        Ok(to) => Ok(Ready { next, to }),
        Err(block) if block.is_final() => Err(State::Failed(block.into())),
        Err(block) => {
            let until = nodes::waiting_until(context.input, next.since);
            if context.now < until {
                plan.wake(until);
                return Err(State::Waiting(block.into()));
            }
            let seconds = context.input.job.spec.pending_deadline_seconds;
            let message = format!(
                "waited {seconds} s (`spec.pendingDeadlineSeconds`): {}: {}",
                block.reason, block.message
            );
            Err(State::Failed(Cause::new(Reason::DeadlineExceeded, message)))
        }
    }
}

/// The receiving end, or what stands in the hop's way.
fn blocked(hop: &Wanted<'_>, context: &Context<'_>) -> Result<Receiving, Block> {
    let input = context.input;
    task::check(input)?;
    let bytes = context.source.as_ref().ok().and_then(|source| source.bytes);
    let target = nodes::target(input, hop, bytes);
    // What is final on the receiving side is said at once, whatever the source waits for.
    if let Err(block) = &target
        && block.is_final()
    {
        return Err(block.clone());
    }
    let source = context.source.as_ref().map_err(Clone::clone)?;
    let target = target?;
    nodes::unfinished_before(input, context.status.run, &source.node, hop).map_or(Ok(target), Err)
}

/// Starts what the decisions let start, as far as there are slots: first those that are one chain, then each of the
/// others from the source. Returns the state of every hop.
pub fn all(
    hops: &[Wanted<'_>],
    decisions: Vec<Decision>,
    context: &Context<'_>,
    plan: &mut Plan,
) -> Vec<State> {
    let mut states: Vec<State> = Vec::with_capacity(hops.len());
    let mut candidates = Vec::new();
    for (index, (hop, decision)) in hops.iter().zip(decisions).enumerate() {
        states.push(match (decision, context.source) {
            (Decision::Settled(state), _) => state,
            (Decision::Start(ready), Ok(_)) => {
                candidates.push(Candidate { index, hop, ready });
                State::Active { moving: false, waits: None }
            }
            (Decision::Start(_), Err(block)) => State::Waiting(block.clone().into()),
        });
    }
    let Ok(source) = context.source else { return states };
    let mut ledger = Ledger::new(context.input);
    let chosen = chain::choose(&candidates, source, context, &ledger);

    let mut tasks: Vec<TransferTask> =
        chosen.iter().map(|index| build(&candidates[*index], source, context)).collect();
    chain::link(&mut tasks);
    for task in &tasks {
        ledger.take(&task.spec.source.node_name, &task.spec.target.node_name);
    }
    // The last one first: whoever reads of a task to send it on finds that task, unless it is over already. What is
    // written by halves when the operator dies has nobody ahead of it, and is planned again.
    tasks.reverse();
    if !tasks.is_empty() {
        plan.actions.push(Action::Create(tasks));
    }
    for (index, candidate) in candidates.iter().enumerate() {
        let hop = candidate.hop;
        if !chosen.contains(&index) {
            if let Some(node) = ledger.full(&source.node, &hop.node) {
                plan.blocked_on.push(node.into());
                plan.queued.push((hop.destination.name.clone(), hop.node.clone()));
                states[candidate.index] = State::Queued { node: node.into() };
                continue;
            }
            ledger.take(&source.node, &hop.node);
            plan.actions.push(Action::Create(vec![build(candidate, source, context)]));
        }
        plan.notes.extend(retrying(candidate, context));
    }
    states
}

fn build(candidate: &Candidate<'_, '_>, source: &Chosen, context: &Context<'_>) -> TransferTask {
    let (job, run) = (context.input.job, context.status.run);
    let Ready { next, to } = &candidate.ready;
    task::build(job, run, candidate.hop, source, to, next.attempt, next.failures)
}

/// The event of another attempt.
fn retrying(candidate: &Candidate<'_, '_>, context: &Context<'_>) -> Option<Note> {
    let (hop, next) = (candidate.hop, &candidate.ready.next);
    let cause = next.after.as_ref()?;
    let message = format!("{} on {}: attempt {} after {cause}", hop.destination.name, hop.node, next.attempt);
    let task = task::name(context.input.job, context.status.run, hop, next.attempt);
    Some(Note {
        reason: Reason::Retrying,
        action: "RetryHop",
        message,
        warning: true,
        news: true,
        task: Some(task),
    })
}
