//! The sending side of a hop in a chain: takes a seat in the worker that receives the node's own copy, publishes agent
//! metadata, names the next node's worker, reports. The bytes go from slot to slot in the worker.

use std::time::Duration;

use kube::ResourceExt;
use nixl_transfer_crds::{Reason, task::Side};

use super::{
    events,
    hop::{Ending, Hop},
    relays::{Offer, RelayKey},
    report::Report,
    source,
};
use crate::metrics::Medium;
use crate::protocol::{Failure, FromWorker, HopId, ToWorker, WorkerName};

/// The second hop of a target's worker.
pub const RELAY: HopId = HopId(1);

/// How long the node's own copy waits for the next node to get ready, or a third of the time that it may stand still. Then
/// it goes on without: one node must not hold up all others. A worker waits a little longer (`worker/target.rs`).
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Where this task's hop meets the one that receives.
pub fn key(hop: &Hop) -> RelayKey {
    (hop.namespace(), hop.task.name_any())
}

/// Sends on what the node receives, until everything is sent.
pub async fn send(hop: &Hop, report: &Report, worker: &mut Option<WorkerName>) -> Ending {
    let mut offer = None;
    let interrupt = hop.interrupt(Side::Source);
    let ending = tokio::select! {
        result = phases(hop, report, &mut offer, worker) => match result {
            Ok(()) => Ending::Succeeded,
            Err(failure) => Ending::Failed(failure),
        },
        ending = interrupt => ending,
    };
    if let Some(Offer { sender, .. }) = offer {
        // The node's own copy goes on without. Its worker may be gone by now, and then there is nothing to close.
        let _ = sender.send(ToWorker::Close { hop: RELAY }, Vec::new()).await;
    }
    ending
}

async fn phases(
    hop: &Hop,
    report: &Report,
    taken: &mut Option<Offer>,
    worker: &mut Option<WorkerName>,
) -> Result<(), Failure> {
    let key = key(hop);
    let late = |what: &str, within: Duration| {
        Failure::new(Reason::PeerLost, format!("{what} within {} s; look at its task", within.as_secs()))
    };
    let offer = tokio::time::timeout(hop.pending(), hop.context.relays.take(&key)).await;
    let offer = taken
        .insert(offer.map_err(|_| late("this node was not ready to receive its own copy", hop.pending()))??);
    *worker = Some(offer.name.clone());
    let metadata = events::prepared(&mut offer.events).await?;
    let metadata = hop.sealed(Side::Source, metadata).await?;
    report.set(source::prepared(metadata, &offer.name, false));
    let ready_within = READY_WITHIN.min(Duration::from_secs(hop.stream()?.progress_seconds.max(1)) / 3);
    let (metadata, peer) = tokio::select! {
        found = tokio::time::timeout(ready_within, hop.peer(Side::Source)) => {
            found.map_err(|_| late("the next node was not ready", ready_within))??
        }
        failure = events::lost(&mut offer.events) => return Err(failure),
    };
    super::metadata::check_rdma(&metadata, &peer)?;
    let relay = hop.task.spec.source.relay.as_ref();
    let progress_seconds = relay.map_or(1, |relay| u64::try_from(relay.progress_seconds).unwrap_or(1));
    let connect = ToWorker::ConnectRelay { hop: RELAY, metadata, worker: WorkerName(peer), progress_seconds };
    offer.sender.send(connect, Vec::new()).await?;
    let (metrics, namespace, mut counted) = (&hop.context.metrics, hop.namespace(), 0);
    loop {
        let (counters, over) = match events::next(&mut offer.events).await? {
            FromWorker::Progress { counters, .. } => (counters, false),
            FromWorker::Sent { counters, .. } => (counters, true),
            FromWorker::Failed { failure, .. } => return Err(failure),
            _ => continue,
        };
        metrics.bytes(&namespace, "sent", Medium::Slots, counters.bytes.saturating_sub(counted));
        counted = counters.bytes.max(counted);
        if over {
            return Ok(());
        }
    }
}
