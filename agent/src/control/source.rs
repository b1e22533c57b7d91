//! The sending side of a hop: walk the tree, take a seat in the run's worker, publish agent metadata, hand over manifest
//! and open files, report.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nixl_transfer_crds::{
    Reason,
    endpoint::Place,
    task::{
        Side, SideState,
        status::{Operation, OperationKind, OperationState, SourceSide},
    },
};

use super::{
    events, external,
    hop::{Ending, Hop},
    nearby,
    order::Order,
    relay,
    report::{Half, Report},
    source_runs::Seat,
    staging::{Share, Staging},
    supply::Supply,
    window,
};
use crate::{
    metrics::Medium,
    protocol::{
        Failure, FileToRead, FromWorker, MAX_DESCRIPTORS, ToWorker, WorkerName,
        entry::{Entry, EntryKind},
    },
    region::{Offered, RegionSource},
    volume::SourceTree,
};

/// Entries in one part of the manifest: small enough for a message with the longest paths.
const MANIFEST_PART: usize = 256;

/// Runs the sending side to its terminal report.
pub async fn run(hop: Hop, order: Order) {
    if order == Order::Nothing {
        return;
    }
    let report = hop.report();
    let (mut worker, mut staged) = (None, false);
    let ending = match Ending::of_order(order) {
        Some(ending) => ending,
        None if hop.task.spec.source.relay.is_some() => relay::send(&hop, &report, &mut worker).await,
        None => send(&hop, &report, (&mut worker, &mut staged)).await,
    };
    ending.count(&hop.context.metrics);
    let (state, operation, reason, message) = ending.stands(OperationKind::Write);
    if let Some(reason) = &reason {
        tracing::info!(reason, message, "sending side ends");
    }
    let half = SourceSide {
        state,
        agent_metadata: None,
        operation: Some(operation),
        staged,
        worker: worker.map(|name| name.0),
        reason,
        message,
        last_transition_time: Some(Time(jiff::Timestamp::now())),
    };
    report.finish(Half::Source(half)).await;
}

async fn send(hop: &Hop, report: &Report, (worker, staged): (&mut Option<WorkerName>, &mut bool)) -> Ending {
    let stop_walk = Arc::new(AtomicBool::new(false));
    let mut seat = None;
    // Given back when the seat is left, not before.
    let (mut share, mut supplied) = (None, None);
    let sent = AtomicBool::new(false);
    let interrupt = hop.interrupt(Side::Source);
    let mut ending = tokio::select! {
        result = phases(hop, report, &mut seat, (&mut share, &mut supplied), &stop_walk, &sent) => match result {
            Ok(()) => Ending::Succeeded,
            Err(failure) => Ending::Failed(failure),
        },
        ending = interrupt => ending,
    };
    // Also when the job is deleted as soon as it is complete: who lent the memory waits to hear.
    let is_there = sent.load(Ordering::Relaxed) && hop.has_target_all();
    if let (true, Some(seat), Some(supply)) = (is_there, &mut seat, &supplied)
        && matches!(ending, Ending::Succeeded | Ending::Cancelled)
        && let Err(failure) = tell_owner(hop, seat, supply).await
    {
        ending = Ending::Failed(failure);
    }
    *staged = supplied.as_ref().is_some_and(is_staged);
    stop_walk.store(true, Ordering::Relaxed);
    if let Some(seat) = seat {
        *worker = Some(seat.worker().clone());
        seat.leave().await;
    }
    ending
}

async fn phases(
    hop: &Hop,
    report: &Report,
    seat: &mut Option<Seat>,
    (staging, supplied): (&mut Option<Share>, &mut Option<Supply>),
    stop_walk: &Arc<AtomicBool>,
    sent: &AtomicBool,
) -> Result<(), Failure> {
    let spec = &hop.task.spec;
    let stream = hop.stream()?;
    let choice = nearby::network(hop, true).await?;
    let supply = supply(hop, stop_walk)?;
    *staging = Some(hop.context.staging.take(&spec.transport, hop.within_node(), hop.pending()).await?);
    let choice = if supply_is_external(hop) { choice.within_node_too() } else { choice };
    let run = (spec.job_ref.uid.clone(), spec.run, hop.within_node());
    let seat = seat.insert(hop.context.source_runs.sit(run, &choice.network).await?);
    seat.send(ToWorker::OpenSource { hop: seat.hop, stream }, Vec::new()).await?;
    let supply = supplied.insert(supply.await?);
    let taken_away = supply.ended();
    let metadata = events::prepared(&mut seat.events).await?;
    let metadata = hop.sealed(Side::Source, metadata).await?;
    report.set(prepared(metadata, seat.worker(), is_staged(supply)));

    // A worker that dies meanwhile is told at once, not when the other side is ready.
    let (metadata, peer) = tokio::select! {
        found = hop.peer(Side::Source) => found?,
        failure = events::lost(&mut seat.events) => return Err(failure),
    };
    super::metadata::check_rdma(&metadata, &peer)?;
    seat.send(ToWorker::Connect { hop: seat.hop, metadata, worker: WorkerName(peer) }, Vec::new()).await?;
    tokio::select! {
        result = send_all(hop, seat, supply, sent) => result,
        failure = taken_away => Err(failure),
    }
}

/// Sends everything, and waits until the target has stored it where that is somebody else's memory: who hears that all is well
/// may give it up.
async fn send_all(hop: &Hop, seat: &mut Seat, supply: &Supply, sent: &AtomicBool) -> Result<(), Failure> {
    feed(hop, seat, supply).await?;
    sent.store(true, Ordering::Relaxed);
    if supply.is_lent() {
        hop.target_has_it().await?;
    }
    Ok(())
}

/// The target has everything: says so to whom the memory is.
async fn tell_owner(hop: &Hop, seat: &mut Seat, supply: &Supply) -> Result<(), Failure> {
    if let Some(offered) = supply.offered() {
        let sender = seat.sender();
        external::tell_owner(&hop.context, offered, (&sender, seat.hop), &mut seat.events).await?;
    }
    supply.sent();
    Ok(())
}

/// Whether a workload of this node exposes what is sent by itself.
fn supply_is_external(hop: &Hop) -> bool {
    let memory = hop.task.spec.source.place.memory();
    memory.is_some_and(|memory| hop.context.regions.is_external(&hop.namespace(), memory))
}

/// What is going to be sent.
type Supplying = Pin<Box<dyn Future<Output = Result<Supply, Failure>> + Send>>;

/// Begins the walk of a tree, or the wait for the right to read a region.
fn supply(hop: &Hop, stop_walk: &Arc<AtomicBool>) -> Result<Supplying, Failure> {
    let algorithm = hop.algorithm();
    match &hop.task.spec.source.place {
        Place::Volume(source) => {
            let volume = hop.volume(&source.at.name)?;
            let (source, stop, memory) = (source.clone(), stop_walk.clone(), hop.memory());
            let walk = tokio::task::spawn_blocking(move || SourceTree::walk(&volume, &source, &stop));
            Ok(Box::pin(async move {
                let failed =
                    |error| Failure::new(Reason::IoError, format!("walking the source failed: {error}"));
                Ok(Supply::Tree(walk.await.map_err(failed)??.remembering(memory, algorithm)))
            }))
        }
        Place::Memory(memory) => {
            let (regions, memory, namespace) = (hop.context.regions.clone(), memory.clone(), hop.namespace());
            let (job, within) = (hop.task.spec.job_ref.name.clone(), hop.pending());
            Ok(Box::pin(async move {
                let reading = regions.read(&namespace, &memory, &job, within).await?;
                Ok(Supply::Region(RegionSource::new(reading, algorithm)))
            }))
        }
    }
}

/// Whether it is copied through pinned host memory, as all memory of a GPU is.
fn is_staged(supply: &Supply) -> bool {
    supply.gpu().is_some()
}

/// The half of a sending side whose worker waits for the target, with what that needs to answer it.
pub fn prepared(metadata: String, worker: &WorkerName, staged: bool) -> Half {
    Half::Source(SourceSide {
        state: SideState::Prepared,
        agent_metadata: Some(metadata),
        operation: Some(Operation { kind: OperationKind::Write, status: OperationState::Initialized }),
        staged,
        worker: Some(worker.0.clone()),
        reason: None,
        message: None,
        last_transition_time: Some(Time(jiff::Timestamp::now())),
    })
}

/// Hands over the manifest, then open files as the worker gets through them, until everything is sent.
async fn feed(hop: &Hop, seat: &mut Seat, supply: &Supply) -> Result<(), Failure> {
    let parts: Vec<&[Entry]> = supply.entries().chunks(MANIFEST_PART).collect();
    for (at, part) in parts.iter().enumerate() {
        let totals = (at + 1 == parts.len()).then(|| supply.totals());
        seat.send(ToWorker::Manifest { hop: seat.hop, entries: part.to_vec(), totals }, Vec::new()).await?;
    }
    let mut files: Vec<u32> = regular_files(supply.entries());
    if let Some(Offered { offer, .. }) = supply.offered() {
        let expected = offer.expected(hop.algorithm())?;
        let unverified = hop.task.spec.source.place.memory().is_some_and(|memory| memory.unverified);
        if expected.is_none() && !unverified {
            let message = "the digest of the external region was taken away since the attempt was planned";
            return Err(Failure::new(Reason::RegionNotReady, message));
        }
        let metadata = offer.metadata.clone();
        seat.send(ToWorker::FromExternal { hop: seat.hop, metadata, expected }, Vec::new()).await?;
        files.clear();
    }
    if let Some(memory) = supply.gpu() {
        let (memory, descriptors) = memory.to_open()?;
        seat.send(ToWorker::FromDevice { hop: seat.hop, memory }, descriptors).await?;
        files.clear();
    }
    let (mut opened, mut consumed, mut reported) = (0, 0, 0);
    let window = window::files();
    let medium = Medium::of(supply.is_memory());
    let (metrics, namespace) = (&hop.context.metrics, hop.namespace());
    let mut count = |bytes: u64| {
        metrics.bytes(&namespace, "sent", medium, bytes.saturating_sub(reported));
        reported = bytes.max(reported);
    };
    let _moving = hop.context.metrics.in_flight(Staging::need(&hop.task.spec.transport)?);
    loop {
        while opened < files.len() && opened - consumed < window {
            let room = (window - (opened - consumed)).min(MAX_DESCRIPTORS);
            let batch = &files[opened..files.len().min(opened + room)];
            let descriptors = tokio::task::block_in_place(|| supply.open(batch))?;
            let memory = supply.is_memory();
            let file = |index: &u32| FileToRead { index: *index, known: supply.known(*index), memory };
            let files = batch.iter().map(file).collect();
            seat.send(ToWorker::Files { hop: seat.hop, files }, descriptors).await?;
            opened += batch.len();
        }
        match events::next(&mut seat.events).await? {
            FromWorker::Consumed { below, digests, .. } => {
                consumed = files.partition_point(|index| *index < below).max(consumed);
                tokio::task::block_in_place(|| {
                    digests.iter().for_each(|file| supply.remember(file.index, &file.digest));
                });
            }
            FromWorker::Progress { counters, .. } => count(counters.bytes),
            FromWorker::Sent { counters, .. } => {
                count(counters.bytes);
                return Ok(());
            }
            FromWorker::Failed { failure, .. } => return Err(failure),
            _ => {}
        }
    }
}

/// Places of the regular files in a manifest, ascending.
pub fn regular_files(entries: &[Entry]) -> Vec<u32> {
    let is_file = |entry: &Entry| matches!(entry.kind, EntryKind::File { .. });
    (0u32..).zip(entries).filter(|(_, entry)| is_file(entry)).map(|(index, _)| index).collect()
}
