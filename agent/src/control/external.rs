//! The end of a hop whose other party is a workload that exposes its memory by itself: what it offers serves one transfer, so
//! that it has served is written down, and then the workload is told.

use std::time::Duration;

use nixl_transfer_crds::Reason;
use tokio::sync::{mpsc, oneshot};

use super::{HopContext, events, regions::Consumed, workers::WorkerEvent};
use crate::{
    protocol::{Failure, FromWorker},
    region::{Offer, RegionKey},
};

/// How long the API server may take.
const WRITTEN_WITHIN: Duration = Duration::from_secs(20);

/// Writes down that the offer has served. After this no other attempt uses it, whatever becomes of this one.
pub async fn consume(
    context: &HopContext,
    (key, uid): (&RegionKey, &str),
    offer: &Offer,
) -> Result<(), Failure> {
    if !context.fence.may_commit() {
        let message = "the agent has not renewed its Lease in time, and another may be there: the workload was not told";
        return Err(Failure::new(Reason::AgentNotReady, message));
    }
    let (answer, answered) = oneshot::channel();
    let consumed = Consumed { key: key.clone(), uid: uid.to_owned(), offer: offer.id.clone(), answer };
    let ending = |_| Failure::new(Reason::AgentRestarted, "the agent is ending");
    context.consumed.send(consumed).await.map_err(ending)?;
    match tokio::time::timeout(WRITTEN_WITHIN, answered).await {
        Ok(Ok(true)) => Ok(()),
        _ => {
            let message = format!(
                "that MemoryRegion {} has served could not be written to its status, so its workload was not told",
                key.1
            );
            Err(Failure::new(Reason::AgentNotReady, message))
        }
    }
}

/// Waits until the worker has told the workload.
pub async fn told(events: &mut mpsc::Receiver<WorkerEvent>) -> Result<(), Failure> {
    loop {
        match events::next(events).await? {
            FromWorker::Completed { .. } => return Ok(()),
            FromWorker::Failed { failure, .. } => return Err(failure),
            _ => {}
        }
    }
}
