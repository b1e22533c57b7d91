//! The sending side of a hop: packs the manifest and the files that control has opened into chunks, without what the
//! target has of them. A file that changes while it is read fails the hop before its end is sent, so the other side never
//! takes it for whole.

pub(super) mod answers;
mod limiter;
mod packer;
mod passing;
mod pieces;
mod read;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nixl_connect::{RdmaMetadata, Sender, StreamError};
use nixl_transfer_crds::Reason;
use nixl_transfer_gpu::Access;

use super::device::Device;
use super::digests::Digests;
use super::external::External;
use super::failures;
use super::hop::{HopCommand, Seat, Stop, out_of_turn};
use super::pieces::Pieces;
use super::progress::Pace;
use crate::digest;
use crate::manifest;
use crate::protocol::entry::{Entry, EntryKind, Totals};
use crate::protocol::{Counters, Failure, FileDigest, FileToRead, FromWorker};
use crate::wire::Has;
use answers::Answers;
use limiter::Limiter;
use packer::Packer;

/// Files after which control is told that it may open more.
const CONSUMED_EVERY: usize = 64;

/// The body of a source hop's thread.
pub(super) fn run(mut seat: Seat, corrupt_chunk: Option<u64>) -> Result<(), Stop> {
    let sender = connected(&mut seat, corrupt_chunk)?;
    let patience = seat.patience();
    let answers = Answers::new(sender.answers(), digest::length(seat.options.algorithm));
    let mut packer = Packer::new(sender, patience);
    if let Some(bytes_per_second) = seat.options.bytes_per_second {
        packer.limit(Limiter::new(bytes_per_second, Instant::now()), seat.closing());
    }
    let digests = Digests::new(seat.options.algorithm);
    let mut source = Source {
        packer,
        answers,
        digests,
        entries: Vec::new(),
        totals: None,
        next: 0,
        files: VecDeque::new(),
        memory: None,
        counters: Counters::default(),
        pace: Pace::new(Instant::now()),
        consumed: 0,
        digested: Vec::new(),
        seat,
    };
    match source.send_all().and_then(|()| source.complete()) {
        Err(Stop::Failed(failure)) if source.seat.is_closed() => {
            tracing::debug!(%failure, "closed while it worked");
            Err(Stop::Closed)
        }
        other => other,
    }
}

/// Opens the ring, says who we are, and connects to the target that control names.
fn connected(seat: &mut Seat, corrupt_chunk: Option<u64>) -> Result<Sender, Stop> {
    let slots = seat.options.in_flight as usize;
    let chunk_size = usize::try_from(seat.options.chunk_size).unwrap_or(usize::MAX);
    let opening = |error: StreamError| failures::opening(&error);
    let mut sender = Sender::open(&seat.agent.session, slots, chunk_size).map_err(opening)?;
    seat.arm(sender.abort_handle());
    if let Some(sequence) = corrupt_chunk {
        sender.corrupt_chunk(sequence, 1);
    }
    seat.outbox.send(&FromWorker::Prepared { hop: seat.id, metadata: seat.agent.metadata.clone() });
    let (target, _) = next_peer(seat)?;
    sender.connect(&target).map_err(|error| failures::connecting(&error))?;
    Ok(sender)
}

/// Waits for the target that control names, and for how long it may stand still.
pub(super) fn next_peer(seat: &mut Seat) -> Result<(RdmaMetadata, Duration), Stop> {
    let peer = seat.connection()?;
    failures::metadata_length(peer.metadata.len())?;
    let target = RdmaMetadata::parse(&peer.metadata).map_err(|error| failures::metadata(&error))?;
    if target.agent().agent() != peer.worker.0 {
        return Err(failures::other_worker(&peer.worker.0, target.agent().agent()).into());
    }
    Ok((target, peer.patience.unwrap_or_else(|| seat.patience())))
}

/// Announces the end and waits until the target has taken everything.
pub(super) fn finish(sender: &mut Sender, patience: Duration) -> Result<(), StreamError> {
    patiently(sender, patience, Sender::finish)
}

/// Waits for something of the target. Each chunk that comes back, and each sign that it is at work, starts the patience
/// again.
pub(super) fn patiently<R>(
    sender: &mut Sender,
    patience: Duration,
    mut wait: impl FnMut(&mut Sender, Instant) -> Result<R, StreamError>,
) -> Result<R, StreamError> {
    let seen = |sender: &Sender| (sender.progress().snapshot(), sender.answered());
    loop {
        let before = seen(sender);
        match wait(sender, Instant::now() + patience) {
            Err(StreamError::DeadlineExceeded(_)) if seen(sender) != before => {}
            ended => return ended,
        }
    }
}

/// Counts what was moved, and tells control now and then. Stops a hop that was closed.
fn moved(seat: &Seat, counters: &mut Counters, pace: &mut Pace, bytes: u64, resent: u64) -> Result<(), Stop> {
    if seat.is_closed() {
        return Err(Stop::Closed);
    }
    counters.bytes += bytes;
    counters.resent = resent;
    if pace.is_due(*counters, Instant::now()) {
        seat.outbox.send(&FromWorker::Progress { hop: seat.id, counters: *counters });
    }
    Ok(())
}

struct Source {
    seat: Seat,
    packer: Packer,
    answers: Answers,
    entries: Vec<Entry>,
    totals: Option<Totals>,
    /// The place in `entries` behind the last file that was sent.
    next: usize,
    files: VecDeque<(FileToRead, OwnedFd)>,
    /// The memory that is sent instead of a file, and its digest where that was said.
    memory: Option<(Pieces, Option<Vec<u8>>)>,
    digests: Digests,
    counters: Counters,
    pace: Pace,
    consumed: u32,
    /// Digests that control was not told yet.
    digested: Vec<FileDigest>,
}

impl Source {
    fn send_all(&mut self) -> Result<(), Stop> {
        loop {
            match self.next_file() {
                Some(index) if self.memory.is_some() => self.send_memory(index)?,
                Some(index) => match self.files.pop_front() {
                    Some((given, file)) if given.index == index => self.send_file(given, &file)?,
                    Some(_) => return Err(out_of_turn().into()),
                    None => self.hear()?,
                },
                None => match self.totals {
                    Some(totals) => return self.end(totals),
                    None => self.hear()?,
                },
            }
        }
    }

    /// The next regular file that the manifest, as far as it is known, has.
    fn next_file(&self) -> Option<u32> {
        let rest = self.entries.get(self.next..)?;
        let ahead = rest.iter().position(|entry| matches!(entry.kind, EntryKind::File { .. }))?;
        u32::try_from(self.next + ahead).ok()
    }

    /// Takes what control says next. Before waiting for it, what is packed goes out.
    fn hear(&mut self) -> Result<(), Stop> {
        let command = match self.seat.command_at_hand()? {
            Some(command) => command,
            None => {
                self.packer.flush()?;
                self.tell_consumed();
                let patience = self.seat.patience();
                self.seat.command(Instant::now() + patience)?.ok_or_else(|| {
                    let message = format!(
                        "the agent opened no further file within {} s; look at the volume's disk",
                        patience.as_secs()
                    );
                    Failure::new(Reason::ProgressDeadlineExceeded, message)
                })?
            }
        };
        match command {
            HopCommand::Manifest { entries, totals } if self.totals.is_none() => {
                self.packer.manifest(&entries)?;
                self.entries.extend(entries);
                if let Some(totals) = totals {
                    manifest::check(&self.entries, totals)?;
                    self.packer.write(|frames| frames.manifest_end(totals))?;
                    self.totals = Some(totals);
                }
            }
            HopCommand::Files(files) => self.files.extend(files),
            HopCommand::External { metadata, expected } if self.memory.is_none() => {
                let Seat { agent, .. } = &self.seat;
                let arm = |handle| self.seat.arm(handle);
                let external = External::open(&agent.session, &metadata, self.seat.patience(), arm)?;
                self.memory = Some((Pieces::External(external), expected));
            }
            HopCommand::Device { named, library } if self.memory.is_none() => {
                let device = Device::open(&named, &library, Access::Read, self.seat.patience())?;
                self.memory = Some((Pieces::Device(device), None));
            }
            _ => return Err(out_of_turn().into()),
        }
        Ok(())
    }

    /// What the target has of the file. Before waiting for it, what is packed goes out.
    fn asked(&mut self, index: u32) -> Result<Has, Stop> {
        let patience = self.seat.patience();
        let failed = |error: StreamError| failures::stream(&error, patience);
        if let Some(has) = self.answers.at_hand(index).map_err(failed)? {
            return Ok(has);
        }
        self.packer.flush()?;
        self.tell_consumed();
        Ok(self.answers.of(index, patience, || {}).map_err(failed)?)
    }

    fn send_file(&mut self, given: FileToRead, file: &OwnedFd) -> Result<(), Stop> {
        let FileToRead { index, known, memory } = given;
        let has = self.asked(index)?;
        let Some(Entry { path, kind: EntryKind::File { size, .. } }) = self.entries.get(index as usize)
        else {
            return Err(out_of_turn().into());
        };
        let shown = path.display();
        let known = known.as_deref();
        let read = read::FileToSend { index, file, shown: &shown, size: *size, known, memory };
        let (packer, counters, pace, seat) =
            (&mut self.packer, &mut self.counters, &mut self.pace, &self.seat);
        let moved = |bytes, resent| moved(seat, counters, pace, bytes, resent);
        let digest = read.send(packer, seat.options.algorithm, &has, moved)?;
        self.sent(index, digest);
        Ok(())
    }

    /// A file was sent.
    fn sent(&mut self, index: u32, digest: Vec<u8>) {
        self.digests.push(index, &digest);
        self.counters.files += 1;
        self.next = index as usize + 1;
        self.consumed = index + 1;
        self.digested.push(FileDigest { index, digest });
        if self.digested.len() >= CONSUMED_EVERY {
            self.tell_consumed();
        }
    }

    fn send_memory(&mut self, index: u32) -> Result<(), Stop> {
        // What the target has is of no use here; but it must be ready.
        self.asked(index)?;
        let Some(Entry { kind: EntryKind::File { size, .. }, .. }) = self.entries.get(index as usize) else {
            return Err(out_of_turn().into());
        };
        let size = *size;
        let Some((mut memory, expected)) = self.memory.take() else { return Err(out_of_turn().into()) };
        let algorithm = self.seat.options.algorithm;
        let (packer, counters, pace, seat) =
            (&mut self.packer, &mut self.counters, &mut self.pace, &self.seat);
        let moved = |bytes, resent| moved(seat, counters, pace, bytes, resent);
        let digest = pieces::send(&mut memory, (index, size), algorithm, expected.as_deref(), packer, moved)?;
        self.memory = Some((memory, expected));
        self.sent(index, digest);
        Ok(())
    }

    /// Tells the workload whose memory was sent, when control says that the target has it.
    fn complete(&mut self) -> Result<(), Stop> {
        let external = self.memory.take().and_then(|(memory, _)| memory.into_external());
        if let Some(external) = external {
            self.seat.completion()?;
            external.complete()?;
            self.seat.outbox.send(&FromWorker::Completed { hop: self.seat.id });
        }
        Ok(())
    }

    fn tell_consumed(&mut self) {
        if !self.digested.is_empty() {
            let digests = std::mem::take(&mut self.digested);
            self.seat.outbox.send(&FromWorker::Consumed { hop: self.seat.id, below: self.consumed, digests });
        }
    }

    fn end(&mut self, totals: Totals) -> Result<(), Stop> {
        let digest =
            manifest::digest(self.seat.options.algorithm, &self.entries, |index| self.digests.get(index))
                .ok_or_else(out_of_turn)?;
        self.packer.write(|frames| frames.end(totals, &digest.bytes))?;
        self.packer.finish()?;
        self.tell_consumed();
        self.counters.resent = self.packer.resent();
        self.seat.outbox.send(&FromWorker::Sent { hop: self.seat.id, counters: self.counters });
        Ok(())
    }
}
