//! What the two sides of a hop wait for from their worker, said once: the next message, the metadata, the worker's end.

use nixl_transfer_crds::Reason;
use tokio::sync::mpsc;

use super::workers::WorkerEvent;
use crate::protocol::{Failure, FromWorker, HopId};

/// The next message. The worker has deadlines of its own, and the pool ends one that hangs; either way an event comes.
pub async fn next(events: &mut mpsc::Receiver<WorkerEvent>) -> Result<FromWorker, Failure> {
    match events.recv().await {
        Some(WorkerEvent::Message(message)) => Ok(message),
        Some(WorkerEvent::Gone { status }) => Err(worker_lost(&status)),
        Some(WorkerEvent::Allocated { .. }) => Err(worker_lost("it allocated what nobody had asked for")),
        None => Err(worker_lost("its connection is closed")),
    }
}

/// The metadata of our side, when the worker has it; bounded as a status is.
pub async fn prepared(events: &mut mpsc::Receiver<WorkerEvent>) -> Result<String, Failure> {
    loop {
        match next(events).await? {
            FromWorker::Prepared { metadata, .. } => return super::metadata::bounded(metadata),
            FromWorker::Failed { failure, .. } => return Err(failure),
            FromWorker::NotReady { message } => return Err(no_network(&message)),
            _ => {}
        }
    }
}

/// Waits for the worker to fail or end; before it is connected it has nothing else to say.
pub async fn lost(events: &mut mpsc::Receiver<WorkerEvent>) -> Failure {
    loop {
        match next(events).await {
            Ok(FromWorker::Failed { failure, .. }) | Err(failure) => return failure,
            Ok(_) => {}
        }
    }
}

/// What a hop reports when NIXL does not take the network that was decided.
pub fn no_network(message: &str) -> Failure {
    Failure::new(
        Reason::BackendUnavailable,
        format!(
            "NIXL has no backend for the network that this node offers: {message}; look at the agent's log for what UCX \
             says, and whether the launcher's container has the devices (/dev/infiniband)"
        ),
    )
}

/// What a hop reports when its worker is gone.
pub fn worker_lost(status: &str) -> Failure {
    Failure::new(
        Reason::WorkerLost,
        format!("the worker process ended while it worked on the task: {status}"),
    )
}

/// The hop that a message is about.
pub fn hop_of(message: &FromWorker) -> Option<HopId> {
    match message {
        FromWorker::Prepared { hop, .. }
        | FromWorker::Uses { hop, .. }
        | FromWorker::Progress { hop, .. }
        | FromWorker::Consumed { hop, .. }
        | FromWorker::Manifest { hop, .. }
        | FromWorker::Durable { hop, .. }
        | FromWorker::Stored { hop, .. }
        | FromWorker::Received { hop, .. }
        | FromWorker::Sent { hop, .. }
        | FromWorker::Completed { hop }
        | FromWorker::Failed { hop, .. } => Some(*hop),
        FromWorker::Pong { .. }
        | FromWorker::Ready { .. }
        | FromWorker::NotReady { .. }
        | FromWorker::Allocated
        | FromWorker::Looked
        | FromWorker::Refused { .. } => None,
    }
}
