//! The receiving side of a hop: claim the destination, take a fresh worker, publish RdmaMetadata, prepare and commit
//! files as the worker stores them, report. Its count and digest are the only truth about success.

mod claim;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nixl_transfer_crds::{
    Reason, TransferTask,
    task::{
        Side, SideState,
        status::{Operation, OperationKind, OperationState, TargetSide},
    },
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    events, external,
    hop::{Ending, Hop},
    leftovers, nearby,
    network::Choice,
    order::Order,
    receive::{Arrival, Received},
    relay::RELAY,
    relays::{Offer, Relayed},
    report::{Half, Report},
    staging::{Share, Staging},
    workers::{Worker, WorkerEvent},
};
use crate::{
    protocol::{Failure, FromWorker, HopId, StreamOptions, ToWorker, WorkerName},
    volume::Keep,
};

/// The receiving hop of a target's worker.
const HOP: HopId = HopId(0);

/// Progress is written at most this often.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// What the hop holds while it runs, apart from the phases, so that it can be ended in the right order: first the
/// worker, whose memory a peer can write; then the partial files, the lock and the staging memory.
#[derive(Default)]
struct Held {
    worker: Option<Worker>,
    received: Option<Received>,
    staging: Option<Share>,
}

/// Runs the receiving side to its terminal report.
pub async fn run(hop: Hop, order: Order) {
    if order == Order::Nothing {
        return;
    }
    let report = hop.report();
    let mut half = TargetSide::new(SideState::Pending);
    // Whoever sends on what is received here hears of its end, however soon that comes.
    let onward = hop.task.spec.target.forward_to.as_ref();
    let relayed = onward.map(|task| hop.context.relays.begin((hop.namespace(), task.clone())));
    let (ending, received) = match Ending::of_order(order) {
        Some(ending) => (ending, None),
        None => receive(&hop, &report, &mut half, relayed.as_ref()).await,
    };
    drop(relayed);
    ending.count(&hop.context.metrics);
    let (state, operation, reason, message) = ending.stands(OperationKind::Writable);
    if let Some(reason) = &reason {
        tracing::info!(reason, message, "receiving side ends");
    }
    half.state = state;
    half.rdma_metadata = None;
    half.operation = Some(operation);
    half.reason = reason;
    half.message = message;
    half.last_transition_time = Some(Time(jiff::Timestamp::now()));
    report.finish(Half::Target(Box::new(half))).await;
    // An agent that dies before its success is told has another attempt follow, which must know the files as the run's own.
    tokio::task::block_in_place(|| drop(received));
}

/// Gives the ending, and what is to be dropped when that was told.
async fn receive(
    hop: &Hop,
    report: &Report,
    half: &mut TargetSide,
    relayed: Option<&Relayed>,
) -> (Ending, Option<Received>) {
    let mut held = Held::default();
    let interrupt = hop.interrupt(Side::Target);
    let ending = tokio::select! {
        result = phases(hop, report, half, relayed, &mut held) => match result {
            Ok(()) => Ending::Succeeded,
            Err(failure) => Ending::Failed(failure),
        },
        ending = interrupt => ending,
    };
    if let Some(worker) = held.worker.take() {
        end(worker).await;
    }
    let mut received = held.received.take();
    if !matches!(ending, Ending::Succeeded)
        && let Some(mut received) = received.take()
    {
        let keep = keep(&ending, hop.updates.borrow().as_deref());
        tokio::task::block_in_place(|| {
            received.keep(keep);
            drop(received);
        });
    }
    (ending, received)
}

/// What stays for a further attempt. What had no room must give it back, and what came out wrong once is not built upon.
/// `task` is the latest version; `None` when it is gone.
fn keep(ending: &Ending, task: Option<&TransferTask>) -> Keep {
    if !task.is_some_and(leftovers::keeps) {
        return Keep::Nothing;
    }
    match ending {
        Ending::Succeeded => Keep::Nothing,
        Ending::Cancelled => Keep::All,
        Ending::Failed(failure) => match failure.reason {
            Reason::InsufficientSpace | Reason::IntegrityError => Keep::Committed,
            reason if reason.is_retryable() => Keep::All,
            _ => Keep::Nothing,
        },
    }
}

/// Ends the worker and waits for the proof. Without it nothing may be reported: its memory could still be written.
async fn end(mut worker: Worker) {
    worker.sender().kill();
    while let Some(event) = worker.events.recv().await {
        if matches!(event, WorkerEvent::Gone { .. }) {
            return;
        }
    }
}

async fn phases(
    hop: &Hop,
    report: &Report,
    half: &mut TargetSide,
    relayed: Option<&Relayed>,
    held: &mut Held,
) -> Result<(), Failure> {
    let since = Instant::now();
    let spec = &hop.task.spec;
    let stream = hop.stream()?;
    let choice = nearby::network(hop, false).await?;
    let claim = claim::claim(hop, report, half).await?;
    let choice = if claim.is_external() { choice.within_node_too() } else { choice };
    let taken_away = claim.ended();
    let share = hop.context.staging.take(&spec.transport, hop.within_node(), hop.pending()).await?;
    let staging = held.staging.insert(share);
    let _registered = hop.context.metrics.registered(staging.bytes);
    let sink = tokio::task::block_in_place(|| claim.open(hop))?;
    let received = held.received.insert(Received::new(sink, hop.algorithm()));
    half.staged = received.is_on_gpu();
    tokio::select! {
        result = transfer(hop, report, half, relayed, &mut held.worker, received, (stream, choice, since)) => result,
        failure = taken_away => Err(failure),
    }?;
    // Everything is there and verified. What a workload does with its region from now on changes nothing about that.
    if let (Some(worker), Some(offered)) = (&mut held.worker, received.offered()) {
        let sender = worker.sender();
        external::tell_owner(&hop.context, offered, (&sender, HOP), &mut worker.events).await?;
    }
    Ok(())
}

/// Takes a worker and lets it receive.
async fn transfer(
    hop: &Hop,
    report: &Report,
    half: &mut TargetSide,
    relayed: Option<&Relayed>,
    worker: &mut Option<Worker>,
    received: &mut Received,
    (stream, choice, since): (StreamOptions, Choice, Instant),
) -> Result<(), Failure> {
    let spec = &hop.task.spec;
    let worker = worker.insert(hop.context.workers.take(&choice.network).await?);
    half.worker = Some(worker.name.0.clone());
    let key = Uuid::new_v4().to_string();
    let (read_back, forward) = (spec.integrity.read_back, relayed.map(|_| RELAY));
    if let Some(relayed) = relayed {
        let (name, sender, events) = (worker.name.clone(), worker.sender(), worker.split_off(RELAY));
        relayed.offer(Offer { name, sender, events });
    }
    let open = ToWorker::OpenTarget { hop: HOP, stream, read_back, key, forward };
    worker.sender().send(open, Vec::new()).await?;
    let metadata = events::prepared(&mut worker.events).await?;
    hop.context.metrics.stage("prepare", since.elapsed());
    let metadata = hop.sealed(Side::Target, metadata).await?;
    half.state = SideState::Prepared;
    half.rdma_metadata = Some(metadata);
    half.operation = Some(Operation { kind: OperationKind::Writable, status: OperationState::Initialized });
    half.reason = None;
    half.message = None;
    half.last_transition_time = Some(Time(jiff::Timestamp::now()));
    report.set(Half::Target(Box::new(half.clone())));

    // A worker that dies meanwhile is told at once, not when the other side is ready.
    let (metadata, peer) = tokio::select! {
        found = hop.peer(Side::Target) => found?,
        failure = events::lost(&mut worker.events) => return Err(failure),
    };
    super::metadata::check_agent(&metadata, &peer)?;
    let connect = ToWorker::Connect { hop: HOP, metadata, worker: WorkerName(peer) };
    worker.sender().send(connect, Vec::new()).await?;
    take_in(hop, report, half, worker, received, &choice).await
}

/// Takes in what the worker hands over until all is committed.
async fn take_in(
    hop: &Hop,
    report: &Report,
    half: &mut TargetSide,
    worker: &mut Worker,
    received: &mut Received,
    choice: &Choice,
) -> Result<(), Failure> {
    let fence = hop.context.fence.clone();
    let since = Instant::now();
    let namespace = hop.namespace();
    let _moving = hop.context.metrics.in_flight(Staging::need(&hop.task.spec.transport)?);
    loop {
        // What came last is written even when nothing follows it for long, as while a large file is synced.
        let step = match tokio::time::timeout(PROGRESS_EVERY, events::next(&mut worker.events)).await {
            Ok(message) => {
                let message = message?;
                if let FromWorker::Uses { used, .. } = &message {
                    nearby::used(hop, half, choice, used)?;
                }
                tokio::task::block_in_place(|| received.take(message, &|| fence.may_commit()))
            }
            Err(_) => Ok(Arrival::Nothing),
        };
        received.count(half, &hop.context.metrics, &namespace);
        match step? {
            Arrival::Nothing => {}
            Arrival::Open => {
                if let Some((open, descriptors)) = received.memory_to_open(HOP)? {
                    worker.sender().send(open, descriptors).await?;
                }
                while let Some((files, descriptors)) = tokio::task::block_in_place(|| received.open_more())? {
                    worker.sender().send(ToWorker::Partials { hop: HOP, files }, descriptors).await?;
                }
            }
            Arrival::Done(digest) => {
                hop.context.metrics.stage("move", since.elapsed());
                hop.context.metrics.throughput(received.moved(), since.elapsed());
                half.digest = Some(digest.to_string());
                return Ok(());
            }
        }
        if received.progress_due(PROGRESS_EVERY) {
            if half.state != SideState::Active {
                half.state = SideState::Active;
                half.operation =
                    Some(Operation { kind: OperationKind::Writable, status: OperationState::InProgress });
                half.last_transition_time = Some(Time(jiff::Timestamp::now()));
            }
            report.set(Half::Target(Box::new(half.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        pin::{Pin, pin},
        task::Poll,
    };

    use super::*;
    use crate::protocol::Counters;

    async fn is_pending(mut future: Pin<&mut impl Future<Output = ()>>) -> bool {
        poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
    }

    #[test]
    fn what_is_kept_for_a_further_attempt() {
        let task = |discard: bool, deleted: bool| -> TransferTask {
            let deletion = deleted.then_some("2026-01-01T00:00:00Z");
            serde_json::from_value(serde_json::json!({
                "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "TransferTask",
                "metadata": {"name": "t", "deletionTimestamp": deletion},
                "spec": {
                    "jobRef": {"name": "j", "uid": "1"}, "run": 1, "attempt": 0, "failures": 0, "direction": "Write",
                    "source": {"nodeName": "a", "instance": "i", "volume": {"name": "v", "path": "p"}},
                    "target": {"nodeName": "b", "nodeUID": "n", "instance": "i", "destination": "d",
                               "volume": {"name": "v", "path": "p"}},
                    "transport": {}, "integrity": {}, "writePolicy": "Overwrite",
                    "deadlines": {"pendingSeconds": 1, "progressSeconds": 1}, "cancel": true, "discard": discard
                }
            }))
            .unwrap()
        };
        let failed = |reason| Ending::Failed(Failure::new(reason, "so"));
        for (ending, expected) in [
            (Ending::Succeeded, Keep::Nothing),
            (Ending::Cancelled, Keep::All),
            (failed(Reason::PeerLost), Keep::All),
            (failed(Reason::AgentRestarted), Keep::All),
            (failed(Reason::AgentNotReady), Keep::All),
            (failed(Reason::SourceChanged), Keep::All),
            (failed(Reason::InsufficientSpace), Keep::Committed),
            (failed(Reason::IntegrityError), Keep::Committed),
            (failed(Reason::DestinationExists), Keep::Nothing),
        ] {
            assert_eq!(keep(&ending, Some(&task(false, false))), expected, "{ending:?}");
            assert_eq!(keep(&ending, Some(&task(true, false))), Keep::Nothing, "{ending:?}");
            assert_eq!(keep(&ending, Some(&task(false, true))), Keep::Nothing, "{ending:?}");
            assert_eq!(keep(&ending, None), Keep::Nothing, "{ending:?}");
        }
    }

    /// Until then a peer may write into its memory, and it into its files.
    #[tokio::test]
    async fn a_worker_is_ended_only_when_its_end_is_proven() {
        let (worker, says) = Worker::hollow();
        let mut ending = pin!(end(worker));
        assert!(is_pending(ending.as_mut()).await, "to have asked is no proof");
        let last = FromWorker::Progress { hop: HOP, counters: Counters::default() };
        says.try_send(WorkerEvent::Message(last)).unwrap();
        assert!(is_pending(ending.as_mut()).await, "what it still says is no proof");
        says.try_send(WorkerEvent::Gone { status: "SIGKILL".into() }).unwrap();
        assert!(!is_pending(ending.as_mut()).await);
    }
}
