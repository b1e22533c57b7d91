//! What a target does with each message of its worker: prepares the destination, opens partial files ahead of the data,
//! commits what is stored. Blocking file work; no socket, no Kubernetes. The worker is not trusted: what it says is
//! checked here and in `volume`.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use nixl_transfer_crds::{Algorithm, ContentDigest, Reason, task::status::TargetSide};

use super::window;
use crate::{
    metrics::Metrics,
    protocol::{
        Counters, Failure, FileToWrite, FromWorker, MAX_DESCRIPTORS, Prefix,
        entry::{Entry, Totals},
    },
    volume::{Committed, Destination, Keep, MayCommit, OpenedPartial, Resume},
};

/// Partial files of one message, with their descriptors.
pub type Batch = (Vec<FileToWrite>, Vec<OwnedFd>);

/// What follows from a message.
#[derive(Debug)]
pub enum Arrival {
    /// Nothing to tell the worker.
    Nothing,
    /// Partial files may be opened: [`Received::open_more`], until there are none.
    Open,
    /// Everything is committed and synced: the digest of what the destination holds.
    Done(ContentDigest),
}

/// The receiving end of one hop, as control sees it.
#[derive(Debug)]
pub struct Received {
    destination: Destination,
    algorithm: Algorithm,
    to_open: VecDeque<u32>,
    open: usize,
    window: usize,
    counters: Counters,
    totals: Option<Totals>,
    committed: u64,
    skipped: u64,
    /// Bytes, resent chunks, committed and skipped files that the metrics have seen.
    counted: (u64, u64, u64, u64),
    last_progress: Instant,
    changed: bool,
}

impl Received {
    /// Nothing has arrived yet.
    pub fn new(destination: Destination, algorithm: Algorithm) -> Self {
        Self {
            destination,
            algorithm,
            to_open: VecDeque::new(),
            open: 0,
            window: window::files(),
            counters: Counters::default(),
            totals: None,
            committed: 0,
            skipped: 0,
            counted: (0, 0, 0, 0),
            last_progress: Instant::now(),
            changed: false,
        }
    }

    /// Acts on one message. `may_commit` is asked right before each file gets its name.
    pub fn take(&mut self, message: FromWorker, may_commit: &MayCommit) -> Result<Arrival, Failure> {
        self.changed = true;
        match message {
            FromWorker::Manifest { entries, totals, .. } => self.manifest(entries, totals),
            FromWorker::Stored { files, .. } => {
                let Self { destination, committed, skipped, open, .. } = self;
                destination.commit(&files, may_commit, |outcome| {
                    *match outcome {
                        Committed::Replaced => &mut *committed,
                        Committed::Skipped => &mut *skipped,
                    } += 1;
                    *open = open.saturating_sub(1);
                })?;
                Ok(Arrival::Open)
            }
            FromWorker::Durable { index, length, digest, .. } => {
                // Said of a file that was committed meanwhile, it says nothing any more.
                if self.destination.is_being_written(index) {
                    self.destination.durable(index, length, &digest)?;
                }
                Ok(Arrival::Nothing)
            }
            FromWorker::Progress { counters, .. } => {
                self.counters = counters;
                Ok(Arrival::Nothing)
            }
            FromWorker::Received { counters, .. } => self.received(counters, may_commit),
            FromWorker::Failed { failure, .. } => Err(failure),
            _ => Ok(Arrival::Nothing),
        }
    }

    fn manifest(&mut self, entries: Vec<Entry>, totals: Option<Totals>) -> Result<Arrival, Failure> {
        self.destination.accept(entries, totals)?;
        if !self.destination.manifest_complete() {
            return Ok(Arrival::Nothing);
        }
        self.totals = self.destination.totals();
        self.to_open = self.destination.file_indices().collect();
        Ok(Arrival::Open)
    }

    /// Opens the next partial files of one message, if the window has room. The worker gets them before more are opened.
    pub fn open_more(&mut self) -> Result<Option<Batch>, Failure> {
        let next = self.next_to_open();
        let (mut files, mut descriptors) = (Vec::new(), Vec::new());
        for (index, opened) in next.iter().zip(self.destination.partials(&next)?) {
            let OpenedPartial { partial, existing, resume, known } = opened;
            let prefix = resume.map(|Resume { length, digest }| Prefix { length, digest });
            files.push(FileToWrite { index: *index, compare: existing.is_some(), known, prefix });
            descriptors.push(partial);
            descriptors.extend(existing);
        }
        self.open += files.len();
        Ok((!files.is_empty()).then_some((files, descriptors)))
    }

    /// As many as the window has room for and one message can carry.
    fn next_to_open(&mut self) -> Vec<u32> {
        let room = self.window.saturating_sub(self.open);
        let mut descriptors = 0;
        let fitting = self.to_open.iter().take(room).take_while(|index| {
            descriptors += self.destination.descriptors(**index);
            descriptors <= MAX_DESCRIPTORS
        });
        let count = fitting.count();
        self.to_open.drain(..count).collect()
    }

    fn received(&mut self, counters: Counters, may_commit: &MayCommit) -> Result<Arrival, Failure> {
        self.counters = counters;
        let totals = self
            .totals
            .ok_or_else(|| Failure::new(Reason::IntegrityError, "the stream ended before its manifest"))?;
        if self.committed + self.skipped != totals.files {
            return Err(Failure::new(
                Reason::IntegrityError,
                format!(
                    "{} of {} files were stored when the stream ended",
                    self.committed + self.skipped,
                    totals.files
                ),
            ));
        }
        Ok(Arrival::Done(self.destination.finish(self.algorithm, may_commit)?))
    }

    /// Says what is to stay for the next attempt.
    pub fn keep(&mut self, keep: Keep) {
        self.destination.keep(keep);
    }

    /// Whether progress shall be written now.
    pub fn progress_due(&mut self, every: Duration) -> bool {
        let due = self.changed && self.last_progress.elapsed() >= every;
        if due {
            self.last_progress = Instant::now();
            self.changed = false;
        }
        due
    }

    /// Puts the counts into the half, and what is new of them into the metrics.
    pub fn count(&mut self, half: &mut TargetSide, metrics: &Metrics, namespace: &str) {
        let number = |count: u64| Some(i64::try_from(count).unwrap_or(i64::MAX));
        if let Some(totals) = self.totals {
            half.bytes_total = number(totals.bytes);
            half.files_total = number(totals.files);
        }
        half.bytes_done = number(self.counters.bytes);
        half.bytes_resumed = number(self.counters.resumed);
        half.signs = Some(self.counters.signs).filter(|signs| *signs > 0).and_then(number);
        half.files_done = number(self.committed + self.skipped);
        half.files_skipped = number(self.skipped);
        half.chunks_resent = number(self.counters.resent);
        let (bytes, resent, committed, skipped) = self.counted;
        let received = self.counters.bytes.saturating_sub(self.counters.resumed);
        metrics.bytes(namespace, "received", received.saturating_sub(bytes));
        metrics.verify_failures(self.counters.resent.saturating_sub(resent));
        metrics.files("committed", self.committed - committed);
        metrics.files("skipped", self.skipped - skipped);
        self.counted = (received.max(bytes), self.counters.resent.max(resent), self.committed, self.skipped);
    }
}
