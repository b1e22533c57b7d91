//! Chains: the source sends to the first node, and each node sends every chunk on to the next one while it stores it, so
//! that the source's link carries the data once. Which of the hops that can start now are one chain, in which order, and
//! how their tasks name each other. Pure. The order is in `chain::order`, what becomes of a chain in `chain::links`.

pub mod links;
pub mod order;

use std::collections::{BTreeSet, HashSet};

use nixl_transfer_crds::{FanOut, TransferTask, task::Relay};

use super::{
    hop::{self, Context},
    ledger::Ledger,
    nodes::{Chosen, Wanted},
    start::Ready,
};
use order::{Link, Place};

/// Label of a node: its zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// A hop that can start now.
pub struct Candidate<'a, 'h> {
    /// Its index among all hops.
    pub index: usize,
    /// The hop.
    pub hop: &'a Wanted<'h>,
    /// What it starts with.
    pub ready: Ready,
}

/// Which candidates are one chain, as indexes into them and in its order; none when fewer than two are left.
///
/// No part of it are: hops within the source's node; a second hop to a node, because a worker serves all hops of a run
/// on its node and would fail both; and those that may not depend on other nodes (`hop::next`). A node that has a slot to receive but none to send can be the end of the chain only.
pub fn choose(
    candidates: &[Candidate<'_, '_>],
    source: &Chosen,
    context: &Context<'_>,
    ledger: &Ledger<'_>,
) -> Vec<usize> {
    let input = context.input;
    if input.job.spec.transport.fan_out == FanOut::Direct || !ledger.has_one(&source.node) {
        return Vec::new();
    }
    let receiving: HashSet<&str> = input
        .tasks
        .iter()
        .filter(|task| task.spec.run == context.status.run && hop::is_receiving(task))
        .map(|task| task.spec.target.node_name.as_str())
        .collect();
    let failures = |index: usize| candidates[index].ready.next.failures;
    let mut members: Vec<usize> = (0..candidates.len())
        .filter(|index| {
            let node = candidates[*index].hop.node.as_str();
            let may = candidates[*index].ready.next.chain;
            may && node != source.node && !receiving.contains(node) && ledger.has_one(node)
        })
        .collect();
    members.sort_by_key(|index| failures(*index));
    let mut nodes = BTreeSet::new();
    members.retain(|index| nodes.insert(candidates[*index].hop.node.as_str()));

    let links: Vec<Link<'_>> = members
        .iter()
        .map(|index| {
            let node = candidates[*index].hop.node.as_str();
            Link { node, failures: failures(*index), place: place(context, node), load: ledger.used(node) }
        })
        .collect();
    let ordered = order::order(place(context, &source.node), &links).into_iter().map(|link| members[link]);
    let (mut chain, ends): (Vec<usize>, Vec<usize>) =
        ordered.partition(|index| ledger.has_both(&candidates[*index].hop.node));
    chain.extend(ends.first());
    if chain.len() < 2 { Vec::new() } else { chain }
}

fn place<'a>(context: &Context<'a>, node: &str) -> Place<'a> {
    let input = context.input;
    let label = |key: &str| input.cluster.nodes.get(node)?.labels.get(key).map(String::as_str);
    Place { zone: label(ZONE_LABEL), rack: label(input.rack_label) }
}

/// Makes tasks that each start at the source the hops of one chain: they get their data from, and name, each other.
pub fn link(tasks: &mut [TransferTask]) {
    let names: Vec<String> =
        tasks.iter().map(|task| task.metadata.name.clone().unwrap_or_default()).collect();
    for at in 0..tasks.len() {
        tasks[at].spec.transport.fan_out = FanOut::Chain;
        tasks[at].spec.target.forward_to = names.get(at + 1).cloned();
        if at == 0 {
            continue;
        }
        let before = tasks[at - 1].spec.target.clone();
        let source = &mut tasks[at].spec.source;
        (source.node_name, source.instance) = (before.node_name, before.instance);
        let progress_seconds = patience(tasks[at].spec.deadlines.progress_seconds, at, tasks.len());
        tasks[at].spec.source.relay = Some(Relay { task_name: names[at - 1].clone(), progress_seconds });
    }
}

/// How long the relay at this place may wait for the next node: from `seconds` at the source down to a third of it at the
/// end. A node that hangs holds up all before it, and they must not give each other up for it.
fn patience(seconds: i64, at: usize, hops: usize) -> i64 {
    let (at, hops) = (i64::try_from(at).unwrap_or(1), i64::try_from(hops).unwrap_or(1).max(1));
    (seconds - seconds.saturating_mul(2 * at) / (3 * hops)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_nearer_to_the_end_gives_up_sooner() {
        let all: Vec<i64> = (0..4).map(|at| patience(120, at, 4)).collect();
        assert_eq!(all, [120, 100, 80, 60]);
        assert!((1..64).all(|at| patience(120, at, 64) < patience(120, at - 1, 64)));
        assert_eq!(patience(1, 3, 4), 1);
    }
}
