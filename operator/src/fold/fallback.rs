//! Why hops did not go over the best network, and when that is worth an event. Pure.
//!
//! A cluster without RDMA would get an event with every run that tells nothing, so what the machines simply have not got is said by
//! the status and a metric only. An event comes where RDMA is there and lay idle: somebody can repair that.

use nixl_transfer_crds::{
    Reason,
    job::TransferJobStatus,
    task::status::{TargetSide, TransportUsed},
};

use crate::{
    cluster::Cluster,
    plan::{Note, nodes::Wanted},
};

/// Nodes that an event names.
const MOST_NODES: usize = 3;

/// What somebody can repair comes first.
const ORDER: [Reason; 4] =
    [Reason::LinkDown, Reason::MemlockTooSmall, Reason::NoCommonBackend, Reason::NoRdmaDevice];

fn rank(reason: Option<&str>) -> usize {
    let place = ORDER.iter().position(|known| Some(known.as_str()) == reason);
    place.unwrap_or(ORDER.len())
}

/// The reason that a job's status shows: of all hops the one that matters most.
pub(super) fn of_all(used: &[&TransportUsed]) -> Option<String> {
    let reasons = used.iter().filter_map(|used| used.fallback_reason.as_deref());
    reasons.min_by_key(|reason| rank(Some(reason))).map(str::to_owned)
}

/// The event of a status that is about to be written, if the run's reason has got worse since the one that stands. It comes
/// once: what is written then stands.
pub fn note(
    before: &TransferJobStatus,
    after: &TransferJobStatus,
    hops: &[Wanted<'_>],
    cluster: &Cluster,
) -> Option<Note> {
    let reason_of = |status: &TransferJobStatus| status.transport.as_ref()?.fallback_reason.clone();
    let stood = Some(before).filter(|before| before.run == after.run).and_then(reason_of);
    let now = reason_of(after)?;
    let reason = Reason::parse(&now).filter(|reason| *reason != Reason::NoRdmaDevice)?;
    if rank(Some(&now)) >= rank(stood.as_deref()) {
        return None;
    }
    let nodes: Vec<&str> = hops
        .iter()
        .filter(|hop| reason_of_hop(hop) == Some(&now) && is_news(hop, reason, cluster))
        .map(|hop| hop.node.as_str())
        .collect();
    if nodes.is_empty() {
        return None;
    }
    let more = if nodes.len() > MOST_NODES { " and others" } else { "" };
    let shown = nodes[..nodes.len().min(MOST_NODES)].join(", ");
    let network = after.transport.as_ref().map_or("", |used| &used.network);
    let row = reason.entry();
    let message = format!(
        "Data to {shown}{more} does not go over the best network, but over {network}. {} {}",
        row.meaning, row.remedy
    );
    Some(Note { reason, action: "UseNetwork", message, warning: true, news: true, task: None })
}

fn reason_of_hop<'a>(hop: &Wanted<'a>) -> Option<&'a String> {
    let target: &TargetSide = hop.latest?.status.as_ref()?.target.as_ref()?;
    target.transport.as_ref()?.fallback_reason.as_ref()
}

/// Between nodes one side without RDMA is what the machines are like. The side that receives has it, or it would say otherwise.
fn is_news(hop: &Wanted<'_>, reason: Reason, cluster: &Cluster) -> bool {
    let Some(task) = hop.latest.filter(|_| reason == Reason::NoCommonBackend) else { return true };
    let source = &task.spec.source.node_name;
    let agent = cluster.nodes.get(source).and_then(|view| view.agent.as_ref());
    *source == task.spec.target.node_name || agent.is_some_and(|agent| agent.rdma)
}
