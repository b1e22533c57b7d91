//! The receiving side of a hop: hands the manifest to control, writes what comes into the partial files that control
//! opens, verifies each file and the whole. What comes from the stream is not trusted; what is wrong ends the hop.

mod assembly;
mod reporter;
mod store;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nixl_connect::{CheckedMetadata, Progress, Receiver, StreamError};
use nixl_transfer_crds::Reason;
use rustix::io::{Errno, pwrite};

use super::digests::Digests;
use super::failures;
use super::hop::{HopCommand, Partial, Seat, Stop, out_of_turn};
use super::progress::Pace;
use crate::digest::Hasher;
use crate::manifest;
use crate::protocol::{Counters, Failure, FromWorker};
use crate::wire::Frames;
use assembly::{Assembly, FileFacts, Step};
use store::{FinishedFile, Store};

/// What a target is told when it is opened.
#[derive(Debug)]
pub(super) struct TargetPlan {
    /// The stream's name, unique.
    pub(super) key: String,
    /// Whether each file is read back from the disk.
    pub(super) read_back: bool,
}

/// How long the sender may take to say farewell. Nothing depends on it but the sender's good end.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long the last files may take to reach the disk without one of them getting there: a cache full of one large file
/// goes to a slow disk here.
const STORE: Duration = Duration::from_secs(600);

/// The body of a target hop's thread.
pub(super) fn run(mut seat: Seat, plan: &TargetPlan) -> Result<(), Stop> {
    let receiver = connected(&mut seat, plan)?;
    let algorithm = seat.options.algorithm;
    let store = Store::start(&seat, plan.read_back, receiver.abort_handle())
        .map_err(|error| Failure::new(Reason::WorkerLost, format!("no threads to store files: {error}")))?;
    let mut target = Target {
        assembly: Assembly::new(algorithm),
        digests: Digests::new(algorithm),
        progress: receiver.progress(),
        partials: VecDeque::new(),
        current: None,
        written: 0,
        pace: Pace::new(Instant::now()),
        store,
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
    let (metadata, worker) = seat.connection()?;
    failures::metadata_length(metadata.len())?;
    let source =
        CheckedMetadata::decode(&metadata, Some(&worker.0)).map_err(|error| failures::metadata(&error))?;
    receiver.connect(source).map_err(|error| failures::connecting(&error))?;
    Ok(receiver)
}

struct Target {
    seat: Seat,
    store: Store,
    progress: Arc<Progress>,
    assembly: Assembly,
    digests: Digests,
    partials: VecDeque<Partial>,
    current: Option<OpenFile>,
    /// Bytes of content in all files.
    written: u64,
    pace: Pace,
}

/// The file that is being written.
struct OpenFile {
    partial: Partial,
    hasher: Hasher,
}

impl Target {
    fn receive_all(&mut self, mut receiver: Receiver) -> Result<(), Stop> {
        let patience = self.seat.patience();
        loop {
            let chunk = match receiver.next(Instant::now() + patience) {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return Err(self.stopped(&error)),
            };
            for frame in Frames::new(&chunk).map_err(malformed)? {
                let step = self.assembly.take(frame.map_err(malformed)?)?;
                self.carry_out(step)?;
            }
            self.tell_progress();
        }
        if !self.assembly.is_done() {
            let message = "the source ended the stream before it had sent everything";
            return Err(Failure::new(Reason::IntegrityError, message).into());
        }
        // Everything is here and verified; a sender that does not say farewell changes nothing about that.
        if let Err(error) = receiver.finish(Instant::now() + FAREWELL) {
            tracing::info!(%error, "the source did not take its leave");
        }
        // The last word about bytes: what follows is the disk's work, which may take minutes.
        self.seat.outbox.send(&FromWorker::Progress { hop: self.seat.id, counters: self.counters() });
        self.await_store()?;
        self.seat.outbox.send(&FromWorker::Received { hop: self.seat.id, counters: self.counters() });
        Ok(())
    }

    fn carry_out(&mut self, step: Step<'_>) -> Result<(), Stop> {
        let hop = self.seat.id;
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
                write_all(&open.partial, bytes, offset, || self.assembly.path(file.index), file.size)?;
                open.hasher.update(bytes);
                self.current = Some(open);
                self.written += bytes.len() as u64;
            }
            Step::FileComplete { file, digest } => {
                let open = self.opened(&file)?;
                let found = open.hasher.finish();
                let path = self.assembly.path(file.index);
                if found != digest {
                    let message =
                        format!("{path}: the digest of what arrived is not the one that the source sent");
                    return Err(Failure::new(Reason::IntegrityError, message).into());
                }
                self.digests.push(file.index, digest);
                self.store.finish(FinishedFile { partial: open.partial, facts: file, path, digest: found });
            }
            Step::Done { digest } => {
                let algorithm = self.seat.options.algorithm;
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

    /// The file that is being written, or the next one, when control has opened it.
    fn opened(&mut self, file: &FileFacts) -> Result<OpenFile, Stop> {
        if let Some(open) = self.current.take() {
            return Ok(open);
        }
        let patience = self.seat.patience();
        let deadline = Instant::now() + patience;
        loop {
            match self.partials.pop_front() {
                Some(partial) if partial.index == file.index => {
                    return Ok(OpenFile { partial, hasher: Hasher::new(self.seat.options.algorithm) });
                }
                Some(_) => return Err(out_of_turn().into()),
                None => match self.seat.command(deadline)? {
                    Some(HopCommand::Partials(partials)) => self.partials.extend(partials),
                    Some(_) => return Err(out_of_turn().into()),
                    None => {
                        let message = format!(
                            "no file to write into was opened within {} s; look at the volume's disk",
                            patience.as_secs()
                        );
                        return Err(Failure::new(Reason::ProgressDeadlineExceeded, message).into());
                    }
                },
            }
        }
    }

    /// Waits until the last file was reported.
    fn await_store(&mut self) -> Result<(), Stop> {
        let mut stored = self.store.stored();
        loop {
            match self.seat.command(Instant::now() + STORE)? {
                Some(HopCommand::Drained) => return Ok(()),
                // Control opens ahead; more than the manifest has it does not open.
                Some(_) => return Err(out_of_turn().into()),
                None => {
                    let now = self.store.stored();
                    if std::mem::replace(&mut stored, now) == now {
                        let message = format!("no file reached the disk within {} s", STORE.as_secs());
                        return Err(Failure::new(Reason::IoError, message).into());
                    }
                }
            }
        }
    }

    /// A stream that was aborted because a file could not be finished failed for the file's reason.
    fn stopped(&self, error: &StreamError) -> Stop {
        if matches!(error, StreamError::Closed) {
            if self.seat.is_closed() {
                return Stop::Closed;
            }
            if let Some(failure) = self.store.failure() {
                return Stop::Failed(failure);
            }
        }
        Stop::Failed(failures::stream(error, self.seat.patience()))
    }

    fn counters(&self) -> Counters {
        Counters { bytes: self.written, files: self.store.stored(), resent: self.progress.snapshot().resent }
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

fn write_all(
    partial: &Partial,
    mut bytes: &[u8],
    mut offset: u64,
    path: impl Fn() -> String,
    size: u64,
) -> Result<(), Failure> {
    while !bytes.is_empty() {
        match pwrite(&partial.file, bytes, offset) {
            Ok(0) => return Err(failures::file("writing", &path(), size, Errno::IO)),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failures::file("writing", &path(), size, errno)),
        }
    }
    Ok(())
}
