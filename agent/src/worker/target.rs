//! The receiving side of a hop: hands the manifest to control, says what is here already, writes what comes into the
//! partial files that control opens, verifies each file and the whole. In a relay each chunk is sent on first. What comes
//! from the stream is not trusted; what is wrong ends the hop.

mod answerer;
mod assembly;
mod checkpoints;
mod common;
mod files;
mod partial_file;
mod queue;
mod ready;
mod reporter;
mod store;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nixl_connect::{AnswerSender, CheckedMetadata, Chunk, Progress, Receiver, StreamError};
use nixl_transfer_crds::Reason;

use super::digests::Digests;
use super::external::External;
use super::failures;
use super::hop::{Seat, Stop};
use super::progress::Pace;
use super::relay::{Forwarding, Onward};
use super::signs::{Patience, Signs};
use super::source::answers::Answers;
use super::trouble::Trouble;
use crate::digest;
use crate::manifest;
use crate::protocol::{Counters, Failure, FromWorker};
use crate::wire::{Frames, SIGN_OF_WORK};
use answerer::{Answerer, Behind};
use assembly::{Assembly, Step};
use checkpoints::Checkpoints;
use ready::OpenFile;
pub(super) use ready::ReadyFile;
use store::{FinishedFile, Store};

/// What a target is told when it is opened.
pub(super) struct TargetPlan {
    /// The stream's name, unique.
    pub(super) key: String,
    /// Whether each file is read back from the disk.
    pub(super) read_back: bool,
    /// Where what arrives is sent on.
    pub(super) onward: Option<Onward>,
}

/// How long the sender may take to say farewell. Nothing depends on it but the sender's good end.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long the last files may take to reach the disk without one of them getting there: a cache full of one large file
/// goes to a slow disk here.
const STORE: Duration = Duration::from_secs(600);
/// How long the first chunk waits for the relay to be connected. Control gives it up sooner (`control/relay.rs`).
const RELAY_WITHIN: Duration = Duration::from_secs(35);
/// How often a hop that waits looks for signs of work, and gives its own.
const LOOK: Duration = Duration::from_secs(1);
/// What a relay may take beyond its own deadlines.
const RELAY_GRACE: Duration = Duration::from_secs(5);

/// The body of a target hop's thread.
pub(super) fn run(mut seat: Seat, plan: TargetPlan) -> Result<(), Stop> {
    let receiver = connected(&mut seat, &plan)?;
    let algorithm = seat.options.algorithm;
    // The first chunk is not taken before it is known whether it is sent on.
    let within = RELAY_WITHIN.min(seat.patience() / 2);
    let forwarding = plan.onward.and_then(|onward| onward.begin(&receiver, within));
    let behind = forwarding.as_ref().map(|forwarding| Behind {
        answers: Answers::new(forwarding.answers(), digest::length(algorithm)),
        abort: forwarding.abort_handle(),
        patience: forwarding.patience(),
    });
    let signs = Arc::new(Signs::default());
    let no_threads = |error| Failure::new(Reason::WorkerLost, format!("no threads to store files: {error}"));
    let trouble = Arc::new(Trouble::new(receiver.abort_handle(), seat.own_sender()));
    let store = Store::start(&seat, plan.read_back, Arc::clone(&trouble)).map_err(no_threads)?;
    let checkpoints = Checkpoints::start(&seat, Arc::clone(&trouble)).map_err(no_threads)?;
    Answerer::start(&mut seat, receiver.answers(), behind, Arc::clone(&signs), Arc::clone(&trouble))
        .map_err(no_threads)?;
    let mut target = Target {
        assembly: Assembly::new(algorithm),
        digests: Digests::new(algorithm),
        progress: receiver.progress(),
        ready: VecDeque::new(),
        current: None,
        external: None,
        answers: receiver.answers(),
        signs,
        began: false,
        in_place: 0,
        resumed: 0,
        pace: Pace::new(Instant::now()),
        forwarding,
        store,
        checkpoints,
        trouble,
        seat,
    };
    target.receive_all(receiver)
}

/// Opens the ring, says how it is reached, and connects to the source that control names.
fn connected(seat: &mut Seat, plan: &TargetPlan) -> Result<Receiver, Stop> {
    let slots = seat.options.in_flight as usize;
    let chunk_size = usize::try_from(seat.options.chunk_size).unwrap_or(usize::MAX);
    let opening = |error: StreamError| failures::opening(&error);
    let mut receiver = Receiver::open(&seat.agent.session, slots, chunk_size, &plan.key).map_err(opening)?;
    seat.arm(receiver.abort_handle());
    let offer = receiver.rdma_metadata().to_json();
    seat.outbox.send(&FromWorker::Prepared { hop: seat.id, metadata: offer });
    let peer = seat.connection()?;
    failures::metadata_length(peer.metadata.len())?;
    let source = CheckedMetadata::decode(&peer.metadata, Some(&peer.worker.0))
        .map_err(|error| failures::metadata(&error))?;
    receiver.connect(source).map_err(|error| failures::connecting(&error))?;
    seat.tell_used();
    Ok(receiver)
}

struct Target {
    seat: Seat,
    store: Store,
    checkpoints: Checkpoints,
    trouble: Arc<Trouble>,
    forwarding: Option<Forwarding>,
    progress: Arc<Progress>,
    assembly: Assembly,
    digests: Digests,
    ready: VecDeque<ReadyFile>,
    current: Option<OpenFile>,
    /// A workload's memory that was written and proven, until the workload is told.
    external: Option<External>,
    /// The way back to the source.
    answers: AnswerSender,
    signs: Arc<Signs>,
    /// Whether a chunk has come.
    began: bool,
    /// Bytes of content that are here and verified, in all files.
    in_place: u64,
    /// Bytes that were here and were not sent.
    resumed: u64,
    pace: Pace,
}

impl Target {
    fn receive_all(&mut self, mut receiver: Receiver) -> Result<(), Stop> {
        while let Some(chunk) = self.next_chunk(&mut receiver)? {
            let chunk = Arc::new(chunk);
            self.forward(&chunk);
            for frame in Frames::new(&chunk).map_err(malformed)? {
                let step = self.assembly.take(frame.map_err(malformed)?)?;
                self.carry_out(step)?;
            }
            self.store.hand_over();
            self.tell_progress();
        }
        if !self.assembly.is_done() {
            let message = "the source ended the stream before it had sent everything";
            return Err(Failure::new(Reason::IntegrityError, message).into());
        }
        if let Some(forwarding) = self.forwarding.take() {
            forwarding.finish(RELAY_GRACE, || self.tell_progress());
        }
        // Everything is here and verified; a sender that does not say farewell changes nothing about that.
        if let Err(error) = receiver.finish(Instant::now() + FAREWELL) {
            tracing::info!(%error, "the source did not take its leave");
        }
        // The last word about bytes: what follows is the disk's work, which may take minutes.
        self.seat.outbox.send(&FromWorker::Progress { hop: self.seat.id, counters: self.counters() });
        self.await_store()?;
        self.seat.tell_used();
        self.seat.outbox.send(&FromWorker::Received { hop: self.seat.id, counters: self.counters() });
        if let Some(external) = self.external.take() {
            self.seat.completion()?;
            external.complete()?;
            self.seat.outbox.send(&FromWorker::Completed { hop: self.seat.id });
        }
        Ok(())
    }

    /// The next chunk. It is waited for as long as there are signs that something is done instead.
    fn next_chunk(&mut self, receiver: &mut Receiver) -> Result<Option<Chunk>, Stop> {
        let mut longest = self.seat.patience();
        if !self.began {
            // In a chain all before this node must be ready first.
            longest = longest.max(Duration::from_secs(self.seat.options.connect_seconds));
        }
        let mut patience = Patience::new(longest, self.signs.count(), Instant::now());
        loop {
            match receiver.next(Instant::now() + LOOK) {
                Ok(chunk) => {
                    self.began = true;
                    return Ok(chunk);
                }
                Err(StreamError::DeadlineExceeded(_))
                    if !patience.is_over(self.signs.count(), Instant::now()) =>
                {
                    self.tell_progress();
                }
                Err(error) => return Err(self.stopped(&error)),
            }
        }
    }

    /// Sends a chunk on, while it is stored here. A relay that is over is left behind.
    fn forward(&mut self, chunk: &Arc<Chunk>) {
        if self.forwarding.as_ref().is_some_and(|forwarding| !forwarding.forward(chunk)) {
            self.forwarding = None;
        }
    }

    fn carry_out(&mut self, step: Step<'_>) -> Result<(), Stop> {
        let hop = self.seat.id;
        let algorithm = self.seat.options.algorithm;
        match step {
            Step::Part(entries) => {
                self.seat.outbox.send(&FromWorker::Manifest { hop, entries, totals: None });
            }
            Step::ManifestComplete(totals) => {
                self.seat.outbox.send(&FromWorker::Manifest {
                    hop,
                    entries: Vec::new(),
                    totals: Some(totals),
                });
            }
            Step::Piece { file, offset, bytes } => {
                let mut open = self.opened(&file)?;
                let path = || self.assembly.path(file.index);
                open.write(bytes, offset, path, file.size)?;
                self.checkpoints.written(&mut open, file, offset + bytes.len() as u64, path);
                self.current = Some(open);
                self.in_place += bytes.len() as u64;
                if let Some(forwarding) = &self.forwarding {
                    forwarding.count(bytes.len() as u64);
                }
            }
            Step::Checked { .. } => self.signs.give(),
            Step::Resumed { file, offset, digest } => {
                let path = self.assembly.path(file.index);
                let ready = self.next_file(&file)?;
                let mut told = Instant::now();
                let open = ready.resumed(offset, digest, algorithm, &path, |_| {
                    if told.elapsed() >= LOOK {
                        told = Instant::now();
                        self.signs.give();
                        // Whoever is before waits for a slot meanwhile. That it is gone is heard with the next chunk.
                        let _ = self.answers.send(SIGN_OF_WORK);
                        self.tell_progress();
                    }
                    Ok(())
                })?;
                self.current = Some(open);
                self.here_already(offset);
            }
            Step::Same { file, digest } => {
                let path = self.assembly.path(file.index);
                if !self.next_file(&file)?.stands(digest) {
                    let message = format!("{path}: the source sends nothing of it, and it is not here");
                    return Err(Failure::new(Reason::IntegrityError, message).into());
                }
                self.here_already(file.size);
                self.digests.push(file.index, digest);
                let digest = digest.to_vec();
                self.store.finish(FinishedFile { facts: file, path, digest, written: None });
            }
            Step::FileComplete { file, digest } => self.complete(file, digest)?,
            Step::Done { digest } => {
                let whole =
                    manifest::digest(algorithm, self.assembly.entries(), |index| self.digests.get(index));
                if whole.is_none_or(|whole| whole.bytes != digest) {
                    let message = "the digest of the whole is not the one that the source sent";
                    return Err(Failure::new(Reason::IntegrityError, message).into());
                }
                self.store.no_more();
            }
        }
        Ok(())
    }

    /// A stream that was aborted because a file could not be finished failed for the file's reason.
    fn stopped(&self, error: &StreamError) -> Stop {
        if matches!(error, StreamError::Closed) {
            if self.seat.is_closed() {
                return Stop::Closed;
            }
            if let Some(failure) = self.trouble.failure() {
                return Stop::Failed(failure);
            }
        }
        Stop::Failed(failures::stream(error, self.seat.patience()))
    }

    fn counters(&self) -> Counters {
        Counters {
            bytes: self.in_place,
            resumed: self.resumed,
            signs: self.signs.count(),
            files: self.store.stored(),
            resent: self.progress.snapshot().resent,
        }
    }

    fn tell_progress(&mut self) {
        let counters = self.counters();
        if self.pace.is_due(counters, Instant::now()) {
            self.seat.outbox.send(&FromWorker::Progress { hop: self.seat.id, counters });
        }
    }
}

fn malformed(error: crate::wire::WireError) -> Failure {
    Failure::new(Reason::IntegrityError, format!("the source sent no valid frame: {error}"))
}
