//! Starts the attempts that can start now: what stands in the way of each, the slots, the tasks. Pure.

use std::collections::BTreeMap;

use nixl_transfer_crds::Reason;

use super::{
    Action, Note, Plan,
    hop::{Context, Decision, State, cause::Cause, next::Next, task},
    nodes::{self, Block, Wanted},
};

/// An attempt with nothing in its way but, perhaps, slots.
pub struct Ready {
    /// What it is.
    pub next: Next,
    /// Instance of the agent that receives.
    pub instance: String,
}

/// Asks whether the attempt can start; else what it waits for, and whether it still may.
pub fn gate(hop: &Wanted<'_>, next: Next, context: &Context<'_>, plan: &mut Plan) -> Result<Ready, State> {
    match blocked(hop, context) {
        Ok(instance) => Ok(Ready { next, instance }),
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

/// The receiving agent's instance, or what stands in the hop's way.
fn blocked(hop: &Wanted<'_>, context: &Context<'_>) -> Result<String, Block> {
    let input = context.input;
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
    nodes::unfinished_before(input, context.status.run, &source.node, hop).map_or(Ok(target), Err)
}

/// Starts what the decisions let start, as far as there are slots; returns the state of every hop.
pub fn all(
    hops: &[Wanted<'_>],
    decisions: Vec<Decision>,
    context: &Context<'_>,
    plan: &mut Plan,
) -> Vec<State> {
    let mut taken = BTreeMap::new();
    let started = hops.iter().zip(decisions).map(|(hop, decision)| match decision {
        Decision::Settled(state) => state,
        Decision::Start(ready) => one(hop, ready, context, &mut taken, plan),
    });
    started.collect()
}

fn one(
    hop: &Wanted<'_>,
    ready: Ready,
    context: &Context<'_>,
    taken: &mut BTreeMap<String, u32>,
    plan: &mut Plan,
) -> State {
    let input = context.input;
    let source = match context.source {
        Ok(source) => source,
        Err(block) => return State::Waiting(block.clone().into()),
    };
    if let Some(node) = nodes::full(input, &source.node, hop, taken) {
        plan.blocked_on.push(node.clone());
        plan.queued.push((hop.destination.name.clone(), hop.node.clone()));
        return State::Queued { node };
    }
    let next = ready.next;
    let task =
        task::build(input.job, context.status.run, hop, source, &ready.instance, next.attempt, next.failures);
    for node in [&source.node, &hop.node] {
        *taken.entry(node.clone()).or_default() += 1;
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
