//! What a target does with each message of its worker: prepares the destination, opens partial files ahead of the data,
//! commits what is stored. Blocking file work; no socket, no Kubernetes. The worker is not trusted: what it says is
//! checked here and in `volume`.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use nixl_transfer_crds::{Algorithm, ContentDigest, Reason, task::status::TargetSide};

use super::{sink::Sink, window};
use crate::{
    metrics::{Medium, Metrics},
    protocol::{
        Counters, Failure, FileToWrite, FromWorker, HopId, MAX_DESCRIPTORS, Prefix, ToWorker,
        entry::{Entry, Totals},
    },
    region::Offered,
    volume::{Committed, Keep, MayCommit, OpenedPartial, Resume},
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
    sink: Sink,
    algorithm: Algorithm,
    to_open: VecDeque<u32>,
    open: usize,
    is_opened: bool,
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
    pub fn new(sink: Sink, algorithm: Algorithm) -> Self {
        Self {
            sink,
            algorithm,
            to_open: VecDeque::new(),
            open: 0,
            is_opened: false,
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
                let Self { sink, committed, skipped, open, .. } = self;
                sink.commit(&files, may_commit, |outcome| {
                    *match outcome {
                        Committed::Replaced => &mut *committed,
                        Committed::Skipped => &mut *skipped,
                    } += 1;
                    *open = open.saturating_sub(1);
                })?;
                Ok(Arrival::Open)
            }
            FromWorker::Durable { index, length, digest, .. } => {
                self.sink.durable(index, length, &digest)?;
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
        self.sink.accept(entries, totals)?;
        self.totals = self.sink.totals();
        if self.totals.is_none() {
            return Ok(Arrival::Nothing);
        }
        if self.sink.offered().is_none() && self.sink.gpu().is_none() {
            self.to_open = self.sink.file_indices().into();
        }
        Ok(Arrival::Open)
    }

    /// What a workload offers, if it is the memory that one exposes by itself.
    pub fn offered(&self) -> Option<Offered<'_>> {
        self.sink.offered()
    }

    /// What the worker is told to open memory that is no file, once.
    ///
    /// # Errors
    /// As [`crate::region::GpuMemory::to_open`].
    pub fn memory_to_open(&mut self, hop: HopId) -> Result<Option<(ToWorker, Vec<OwnedFd>)>, Failure> {
        if std::mem::replace(&mut self.is_opened, true) {
            return Ok(None);
        }
        if let Some(Offered { offer, .. }) = self.offered() {
            return Ok(Some((ToWorker::IntoExternal { hop, metadata: offer.metadata.clone() }, Vec::new())));
        }
        let Some(memory) = self.sink.gpu() else { return Ok(None) };
        let (memory, descriptors) = memory.to_open()?;
        Ok(Some((ToWorker::IntoDevice { hop, memory }, descriptors)))
    }

    /// Whether it is memory of a GPU.
    pub fn is_on_gpu(&self) -> bool {
        self.sink.gpu().is_some()
    }

    /// Opens the next partial files of one message, if the window has room. The worker gets them before more are opened.
    pub fn open_more(&mut self) -> Result<Option<Batch>, Failure> {
        let next = self.next_to_open();
        let (mut files, mut descriptors) = (Vec::new(), Vec::new());
        for (index, opened) in next.iter().zip(self.sink.open(&next)?) {
            let OpenedPartial { partial, existing, resume, known } = opened;
            let prefix = resume.map(|Resume { length, digest }| Prefix { length, digest });
            let memory = self.sink.is_memory();
            files.push(FileToWrite { index: *index, compare: existing.is_some(), known, prefix, memory });
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
            descriptors += self.sink.descriptors(**index);
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
        Ok(Arrival::Done(self.sink.finish(self.algorithm, may_commit)?))
    }

    /// Says what is to stay for the next attempt.
    pub fn keep(&mut self, keep: Keep) {
        self.sink.keep(keep);
    }

    /// Bytes that came over the network.
    pub fn moved(&self) -> u64 {
        self.counters.bytes.saturating_sub(self.counters.resumed)
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
        let received = self.moved();
        metrics.bytes(
            namespace,
            "received",
            Medium::of(self.sink.is_memory()),
            received.saturating_sub(bytes),
        );
        metrics.verify_failures(self.counters.resent.saturating_sub(resent));
        metrics.files("committed", self.committed - committed);
        metrics.files("skipped", self.skipped - skipped);
        self.counted = (received.max(bytes), self.counters.resent.max(resent), self.committed, self.skipped);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt, path::Path, sync::Arc};

    use nixl_transfer_crds::WritePolicy;

    use super::*;
    use crate::{
        digest, manifest,
        protocol::{
            HopId, StoredFile,
            entry::{EntryKind, RelativePath, Time},
        },
        volume::{Destination, DestinationLocks, RunPlace, Volume, VolumeConfig},
    };

    const FILES: u32 = 300;
    const HOP: HopId = HopId(0);

    fn received(root: &Path, policy: WritePolicy) -> Received {
        let config = VolumeConfig {
            name: "data".into(),
            path: root.into(),
            read_only: false,
            allowed_namespaces: vec!["*".into()],
        };
        let volume = Arc::new(Volume::open(&config).unwrap());
        let lock = DestinationLocks::default().try_lock(&volume, "out").unwrap().expect("free");
        let place = RunPlace { job_uid: "u".into(), run: 1, destination: "d".into(), node_uid: "n".into() };
        let destination = Destination::open(&volume, "out", policy, &place, "a", Algorithm::Xxh3, lock);
        let sink = Sink::Volume(Box::new(destination.unwrap()));
        Received { window: 200, ..Received::new(sink, Algorithm::Xxh3) }
    }

    fn manifest() -> FromWorker {
        let time = Time { seconds: 1, nanoseconds: 0 };
        let entry = |path: String, kind| Entry { path: RelativePath(path.into()), kind };
        let mut entries = vec![entry(String::new(), EntryKind::Directory { mode: 0o755, mtime: time })];
        entries.extend((0..FILES).map(|at| {
            entry(format!("{at:03}"), EntryKind::File { size: 0, mode: 0o600, mtime: time, inode: at.into() })
        }));
        FromWorker::Manifest { hop: HOP, totals: Some(manifest::totals(&entries)), entries }
    }

    /// What one call after the other gives: indices, and how many descriptors came with them.
    fn opened(received: &mut Received, held: &mut Vec<OwnedFd>) -> Vec<(Vec<u32>, usize)> {
        let mut batches = Vec::new();
        while let Some((files, descriptors)) = received.open_more().unwrap() {
            batches.push((files.iter().map(|file| file.index).collect(), descriptors.len()));
            held.extend(descriptors);
        }
        batches
    }

    #[test]
    fn files_are_opened_in_order_as_far_as_window_and_messages_have_room() {
        for (policy, in_a_message) in [(WritePolicy::Overwrite, 128), (WritePolicy::SkipIdentical, 64)] {
            let directory = tempfile::Builder::new().prefix("nixl-transfer-receive-").tempdir().unwrap();
            let out = directory.path().join("out");
            fs::create_dir(&out).unwrap();
            (0..FILES).for_each(|at| fs::write(out.join(format!("{at:03}")), "").unwrap());
            let mut received = received(directory.path(), policy);
            assert!(matches!(received.take(manifest(), &|| true).unwrap(), Arrival::Open));
            let mut held = Vec::new();
            let batches = opened(&mut received, &mut held);
            let indices: Vec<u32> = batches.iter().flat_map(|(indices, _)| indices.clone()).collect();
            assert_eq!(indices, (1..=200).collect::<Vec<_>>(), "as many as the window has room for");
            for (indices, descriptors) in &batches {
                assert!(indices.len() <= in_a_message && *descriptors <= MAX_DESCRIPTORS, "{batches:?}");
            }
            assert_eq!(batches.first().map(|(indices, _)| indices.len()), Some(in_a_message), "{policy:?}");
            let names = fs::read_dir(directory.path().join(".nixl-transfer/u.1.d.n")).unwrap().count();
            assert_eq!(names, 200 + 1, "and the journal");

            let digest = digest::of(Algorithm::Xxh3, b"").bytes;
            let files = [7, 3, 5].map(|index| StoredFile { index, digest: digest.clone(), identical: false });
            for file in &files {
                let partial = held_partial(&held, policy, file.index);
                crate::volume::destination::attributes::set(
                    partial,
                    0o600,
                    Time { seconds: 1, nanoseconds: 0 },
                )
                .unwrap();
            }
            let stored = FromWorker::Stored { hop: HOP, files: files.to_vec() };
            assert!(matches!(received.take(stored, &|| true).unwrap(), Arrival::Open));
            assert_eq!((received.committed, received.open), (3, 197));
            let indices: Vec<_> = opened(&mut received, &mut held).into_iter().map(|batch| batch.0).collect();
            assert_eq!(indices, [vec![201, 202, 203]], "as many as are over");
            let inode = fs::metadata(out.join("002")).unwrap().ino();
            assert_eq!(inode, fs::File::from(held_partial(&held, policy, 3)).metadata().unwrap().ino());
        }
    }

    fn held_partial(held: &[OwnedFd], policy: WritePolicy, index: u32) -> OwnedFd {
        let each = if policy == WritePolicy::SkipIdentical { 2 } else { 1 };
        held[(index as usize - 1) * each].try_clone().unwrap()
    }
}
