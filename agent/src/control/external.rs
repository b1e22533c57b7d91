//! The end of a hop whose other party is a workload that exposes its memory by itself: what it offers serves one transfer, so
//! that it has served is written down, and then the workload is told.

use std::time::Duration;

use nixl_transfer_crds::Reason;
use tokio::sync::{mpsc, oneshot};

use super::{
    HopContext, events,
    regions::Consumed,
    workers::{WorkerEvent, WorkerSender},
};
use crate::{
    protocol::{Failure, FromWorker, HopId, ToWorker},
    region::Offered,
};

/// How long the API server may take.
const WRITTEN_WITHIN: Duration = Duration::from_secs(20);

/// All is well with the transfer: writes down that the offer has served, and has the worker tell the workload.
pub async fn tell_owner(
    context: &HopContext,
    offered: Offered<'_>,
    (sender, hop): (&WorkerSender, HopId),
    events: &mut mpsc::Receiver<WorkerEvent>,
) -> Result<(), Failure> {
    consume(context, offered).await?;
    sender.send(ToWorker::Complete { hop }, Vec::new()).await?;
    loop {
        match events::next(events).await? {
            FromWorker::Completed { .. } => return Ok(()),
            FromWorker::Failed { failure, .. } => return Err(failure),
            _ => {}
        }
    }
}

/// Writes down that the offer has served. After this no other attempt uses it, whatever becomes of this one.
async fn consume(context: &HopContext, offered: Offered<'_>) -> Result<(), Failure> {
    let Offered { key, uid, offer } = offered;
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
