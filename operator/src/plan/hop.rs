//! What became of one hop, and whether its next attempt is to start now. Pure. An attempt under way is looked after in
//! `hop::attend`, what follows one is in `hop::next`; those that start now are started together, in `plan::start`.

pub mod attend;
pub mod cause;
pub mod next;
pub mod task;

use jiff::Timestamp;
use nixl_transfer_crds::{TransferTask, job::TransferJobStatus, task::SideState};

use super::{
    Input, Plan,
    chain::links::Links,
    nodes::{self, Block, Chosen, Wanted},
    path::Overlap,
    run::Halt,
    start::{self, Ready},
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
    /// How the tasks hang together.
    pub links: &'a Links<'a>,
    /// Whether the run is being stopped.
    pub halt: Option<Halt>,
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

/// What is decided about a hop by itself.
pub enum Decision {
    /// Its state; nothing starts.
    Settled(State),
    /// It can start; whether it does, and from whom, is decided with the others that can.
    Start(Ready),
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

/// Whether the source's agent has sent everything, and the target's has it.
pub fn was_sent(task: &TransferTask) -> bool {
    sides(task).0 == Some(SideState::Succeeded)
}

/// Whether the target's agent may still store something for the task.
pub fn is_receiving(task: &TransferTask) -> bool {
    !sides(task).1.is_some_and(SideState::is_terminal)
}

/// Whether its agents were asked to end it.
fn was_asked(task: &TransferTask) -> bool {
    task.spec.cancel || task.metadata.deletion_timestamp.is_some()
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

/// Whether the hop's node has the data, by the tasks and by where the source is.
pub fn holds(hop: &Wanted<'_>, input: &Input<'_>, status: &TransferJobStatus) -> bool {
    hop.latest.is_some_and(|task| has_succeeded(task) && hop.is_where(task))
        || (hop.among_others && nodes::endpoint(input, source_node(input, status), hop) == Overlap::Same)
}

/// The source's node: the one that the spec names, or that was chosen.
fn source_node<'a>(input: &Input<'a>, status: &'a TransferJobStatus) -> Option<&'a str> {
    let named = input.job.spec.source.node.as_ref().and_then(|node| node.name.as_deref());
    named.or(status.source.as_ref().map(|source| source.node.as_str()))
}

/// Decides about one hop; what is to be written goes into the plan.
pub fn decide(hop: &Wanted<'_>, context: &Context<'_>, plan: &mut Plan) -> Decision {
    match able(hop, context, plan) {
        Ok(ready) => Decision::Start(ready),
        Err(state) => Decision::Settled(state),
    }
}

/// What the hop would start with; else its state.
fn able(hop: &Wanted<'_>, context: &Context<'_>, plan: &mut Plan) -> Result<Ready, State> {
    if let Some(task) = hop.latest {
        if has_succeeded(task) {
            attend::release_source(task, context.now, plan);
            if hop.is_where(task) {
                return Err(State::Succeeded);
            }
        } else if let Some(state) = attend::under_way(hop, task, context, plan) {
            return Err(state);
        }
    }
    if context.halt.is_some() {
        return Err(State::Stopped);
    }
    match nodes::endpoint(context.input, source_node(context.input, context.status), hop) {
        Overlap::Apart => {}
        Overlap::Same if hop.among_others => return Err(State::Served),
        how => return Err(State::Failed(nodes::same_endpoint(hop, how).into())),
    }
    let next = match hop.latest {
        None => next::first(hop, context),
        Some(task) if has_succeeded(task) => next::elsewhere(task, hop, context),
        Some(task) => next::after(task, context, plan)?,
    };
    start::gate(hop, next, context, plan)
}
