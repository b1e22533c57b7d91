//! From the hops to what people read: counts, sums, rates, one entry per node, phase and message. Pure. When a write is
//! due is in `fold::due`,
//! what is said of the network beside that in `fold::fallback`.

pub mod due;
pub mod fallback;

use std::collections::BTreeSet;

use jiff::Timestamp;
use nixl_transfer_crds::{
    FanOut, Reason,
    job::{
        TransferJobStatus,
        status::{DestinationState, DestinationStatus, MAX_DESTINATIONS_SHOWN, NodeCounts, Phase, Progress},
    },
    task::status::{TargetSide, TransportUsed},
};

use crate::{
    memory::Memory,
    plan::{
        hop::{State, cause::Cause},
        nodes::Wanted,
    },
};

/// How a job's status says that nodes sent on to each other.
const CHAIN: &str = "Chain";

fn target<'a>(hop: &Wanted<'a>) -> Option<&'a TargetSide> {
    hop.latest?.status.as_ref()?.target.as_ref()
}

/// Writes counts, progress, transport and destinations into the status.
pub fn progress(status: &mut TransferJobStatus, hops: &[Wanted<'_>], states: &[State], memory: &Memory) {
    let count = |holds: &dyn Fn(&State) -> bool| {
        let matching = hops.iter().zip(states).filter(|(hop, state)| !hop.node.is_empty() && holds(state));
        i64::try_from(matching.count()).unwrap_or(i64::MAX)
    };
    let nodes = NodeCounts {
        desired: count(&|_| true),
        succeeded: count(&State::is_served),
        active: count(&State::is_active),
        failed: count(&|state| matches!(state, State::Failed(_))),
    };
    status.nodes = Some(nodes);
    status.progress = sums(hops, states, nodes, memory.rate());
    let before = status.transport.as_ref().and_then(|used| used.fan_out.as_deref());
    // While nobody reports what it uses, what was used stays said.
    if let Some(used) = transport(hops, before == Some(CHAIN)) {
        status.transport = Some(used);
    }
    let mut shown: Vec<_> = hops
        .iter()
        .zip(states)
        .filter(|(hop, _)| !hop.node.is_empty())
        .map(|(hop, state)| entry(hop, state))
        .collect();
    shown.sort_by_key(|entry| entry.state);
    shown.truncate(MAX_DESTINATIONS_SHOWN);
    status.destinations = shown;
}

/// Every hop moves the same source, so the total of a hop that has not reported one is the total of one that has.
fn sums(hops: &[Wanted<'_>], states: &[State], nodes: NodeCounts, rate: i64) -> Option<Progress> {
    let moving: Vec<_> = hops
        .iter()
        .zip(states)
        .filter(|(_, state)| **state != State::Served)
        .map(|(hop, _)| target(hop))
        .collect();
    let most = |of: fn(&TargetSide) -> Option<i64>| moving.iter().flatten().filter_map(|half| of(half)).max();
    let sum = |of: fn(&TargetSide) -> Option<i64>, otherwise: i64| {
        moving.iter().map(|half| half.and_then(of).unwrap_or(otherwise)).fold(0i64, i64::saturating_add)
    };
    let bytes_of_one = most(|half| half.bytes_total);
    let files_of_one = most(|half| half.files_total);
    if bytes_of_one.is_none() && files_of_one.is_none() {
        return None;
    }
    let mut progress = Progress {
        bytes_total: sum(|half| half.bytes_total, bytes_of_one.unwrap_or(0)),
        bytes_done: sum(|half| half.bytes_done, 0),
        files_total: sum(|half| half.files_total, files_of_one.unwrap_or(0)),
        files_done: sum(|half| half.files_done, 0),
        bytes_per_second: rate,
        ..Progress::default()
    };
    let share =
        |done: i64, total: i64| i64::try_from(i128::from(done.min(total)) * 100 / i128::from(total.max(1)));
    let percent = match progress.bytes_total {
        _ if nodes.succeeded == nodes.desired => Ok(100),
        0 => share(nodes.succeeded, nodes.desired),
        total => share(progress.bytes_done, total),
    };
    progress.summary = format!("{}% {}/{} nodes", percent.unwrap_or(0), nodes.succeeded, nodes.desired);
    progress.rate = spoken_rate(rate);
    Some(progress)
}

/// A rate for people; empty when nothing is known.
fn spoken_rate(rate: i64) -> String {
    const UNITS: [&str; 5] = ["B/s", "KiB/s", "MiB/s", "GiB/s", "TiB/s"];
    if rate <= 0 {
        return String::new();
    }
    let (mut value, mut unit) = (rate as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// At the end the rate is that of the whole run, when it took long enough to tell.
pub fn finished(status: &mut TransferJobStatus, now: Timestamp) {
    let since = status
        .clock
        .as_ref()
        .and_then(|clock| clock.since.as_ref().map(|since| (clock.ran_seconds, since.0)));
    let (Some(progress), Some((ran, since))) = (status.progress.as_mut(), since) else { return };
    let seconds = ran + now.duration_since(since).as_secs();
    if seconds >= 2 {
        progress.bytes_per_second = progress.bytes_done / seconds;
        progress.rate = spoken_rate(progress.bytes_per_second);
    }
}

/// After the end the rate stays what it was.
pub fn keep_rate(status: &mut TransferJobStatus, before: Option<&TransferJobStatus>) {
    let before = before.and_then(|before| before.progress.as_ref());
    if let (Some(progress), Some(before)) = (status.progress.as_mut(), before) {
        progress.bytes_per_second = before.bytes_per_second;
        progress.rate.clone_from(&before.rate);
    }
}

/// What the agents report about the transport, put together. A run that was a chain once stays one, whatever its last
/// attempts are.
fn transport(hops: &[Wanted<'_>], was_chain: bool) -> Option<TransportUsed> {
    let chained =
        |hop: &Wanted<'_>| hop.latest.is_some_and(|task| task.spec.transport.fan_out == FanOut::Chain);
    let used: Vec<&TransportUsed> = hops.iter().filter_map(|hop| target(hop)?.transport.as_ref()).collect();
    let joined = |of: fn(&TransportUsed) -> &str| {
        used.iter().map(|used| of(used)).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(",")
    };
    if used.is_empty() {
        return None;
    }
    let source = |hop: &Wanted<'_>| hop.latest?.status.as_ref()?.source.as_ref().map(|half| half.staged);
    let staged = [
        ("source", hops.iter().any(|hop| source(hop) == Some(true))),
        ("target", hops.iter().filter_map(target).any(|half| half.staged)),
    ];
    Some(TransportUsed {
        backend: joined(|used| &used.backend),
        network: joined(|used| &used.network),
        devices: Vec::new(),
        direction: Some("Write".into()),
        staged: staged.iter().filter(|(_, is)| *is).map(|(end, _)| (*end).to_owned()).collect(),
        fan_out: Some(if was_chain || hops.iter().any(chained) { CHAIN } else { "Direct" }.into()),
        fallback_reason: fallback::of_all(&used),
    })
}

fn entry(hop: &Wanted<'_>, state: &State) -> DestinationStatus {
    let half = target(hop);
    let (shown, cause) = match state {
        State::Succeeded if is_unverified(hop) => {
            (DestinationState::Succeeded, Some(Cause::new(Reason::Unverified, UNVERIFIED.into())))
        }
        State::Succeeded | State::Served => (DestinationState::Succeeded, None),
        State::Failed(cause) => (DestinationState::Failed, Some(cause.clone())),
        State::Active { waits, .. } => (DestinationState::Active, waits.clone()),
        State::Ending(cause) => (DestinationState::Active, Some(cause.clone())),
        State::Backoff { cause, .. } => (DestinationState::Retrying, Some(cause.clone())),
        State::Queued { node } => (DestinationState::Waiting, Some(queued(node))),
        State::Waiting(cause) => (DestinationState::Waiting, Some(cause.clone())),
        State::Stopped => (DestinationState::Waiting, None),
    };
    let (reason, message) = cause.map(|cause| (cause.reason.as_str().to_string(), cause.message)).unzip();
    DestinationStatus {
        name: hop.destination.name.clone(),
        node: hop.node.clone(),
        state: shown,
        attempt: hop.latest.map_or(0, |task| task.spec.attempt),
        bytes_done: half.and_then(|half| half.bytes_done).unwrap_or(0),
        digest: half.filter(|_| state.is_served()).and_then(|half| half.digest.clone()),
        reason,
        message,
    }
}

/// What is said of data whose owner has not said what it is.
const UNVERIFIED: &str = "it arrived as it was read, and the owner of the external region has not said what it should be \
                          (`spec.external.digest`)";

/// Whether nothing proves that what arrived is what its owner means.
pub fn is_unverified(hop: &Wanted<'_>) -> bool {
    let memory = hop.latest.and_then(|task| task.spec.source.place.memory());
    memory.is_some_and(|memory| memory.unverified)
}

fn queued(node: &str) -> Cause {
    Cause::new(Reason::Queued, format!("every transfer slot of node {node} is taken"))
}

/// Phase, reason and message of a run that goes on: the furthest phase, and the first thing that someone could look at.
pub fn words(hops: &[Wanted<'_>], states: &[State]) -> (Phase, Reason, String) {
    let done = states.iter().filter(|state| state.is_served()).count();
    let active = states.iter().filter(|state| state.is_active()).count();
    let mut message = format!("{done} of {} nodes have the data, {active} under way", states.len());
    let trouble = hops.iter().zip(states).find_map(|(hop, state)| {
        let cause = match state {
            State::Failed(cause) | State::Waiting(cause) | State::Ending(cause) => cause.clone(),
            State::Backoff { cause, .. } => cause.clone(),
            State::Active { waits: Some(cause), .. } => cause.clone(),
            _ => return None,
        };
        Some((hop, state, cause))
    });
    if let Some((hop, state, cause)) = &trouble {
        message = format!("{message}; {}: {cause}", hop.destination.name);
        if let State::Backoff { until, .. } = state {
            message = format!("{message}; next attempt at {}", until.strftime("%H:%M:%SZ"));
        }
    }
    let any = |holds: fn(&State) -> bool| states.iter().any(holds);
    let (phase, reason) = if any(|state| matches!(state, State::Active { moving: true, .. })) {
        (Phase::Transferring, Reason::Transferring)
    } else if any(|state| matches!(state, State::Active { .. })) {
        (Phase::Preparing, Reason::Preparing)
    } else if any(|state| matches!(state, State::Ending(_) | State::Backoff { .. })) {
        (Phase::Retrying, Reason::Retrying)
    } else if let Some(State::Queued { node }) =
        states.iter().find(|state| matches!(state, State::Queued { .. }))
    {
        if trouble.is_none() {
            message = format!("{message}; {}", queued(node).message);
        }
        (Phase::Queued, Reason::Queued)
    } else {
        (Phase::Pending, trouble.map_or(Reason::Pending, |(_, _, cause)| cause.reason))
    };
    (phase, reason, message)
}
