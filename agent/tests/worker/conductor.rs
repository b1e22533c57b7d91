//! Plays control for one hop between two workers: a flat directory is moved into another one.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nixl_transfer_crds::Algorithm;
use transfer_agent::manifest;
use transfer_agent::protocol::entry::{Entry, EntryKind, RelativePath, Time};
use transfer_agent::protocol::{
    Counters, Failure, FileToRead, FileToWrite, FromWorker, HopId, OPEN_WINDOW, StreamOptions, ToWorker,
};

use super::Outcome;
use super::process::{Worker, borrowed};
use super::target_end::TargetEnd;

pub const HOP: HopId = HopId(3);
/// Descriptors of one message.
const BATCH: usize = 32;

pub fn options(chunk_size: u64, in_flight: u32) -> StreamOptions {
    StreamOptions {
        chunk_size,
        in_flight,
        bytes_per_second: None,
        algorithm: Algorithm::Xxh3,
        progress_seconds: 20,
        connect_seconds: 20,
    }
}

/// The manifest of a flat directory.
pub fn entries(directory: &Path) -> Outcome<Vec<Entry>> {
    let entry = |path: Vec<u8>, metadata: std::fs::Metadata| {
        let mtime = Time { seconds: metadata.mtime(), nanoseconds: metadata.mtime_nsec() as u32 };
        let mode = metadata.mode() & 0o777;
        let kind = if metadata.is_dir() {
            EntryKind::Directory { mode, mtime }
        } else {
            EntryKind::File { size: metadata.len(), mode, mtime, inode: metadata.ino() }
        };
        Entry { path: RelativePath(path), kind }
    };
    let mut entries = vec![entry(Vec::new(), directory.metadata()?)];
    for found in directory.read_dir()? {
        let found = found?;
        entries.push(entry(found.file_name().into_encoded_bytes(), found.metadata()?));
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// The sending end.
pub struct SourceEnd {
    worker: Worker,
    from: PathBuf,
    pub entries: Vec<Entry>,
    opened: usize,
    consumed: usize,
    pub sent: Option<Counters>,
}

impl SourceEnd {
    pub fn open(from: &Path, stream: StreamOptions, corrupt_chunk: Option<u64>) -> Outcome<Self> {
        Self::of(Worker::start("source", corrupt_chunk)?, from, stream)
    }

    /// As `open`, in a worker that is there.
    pub fn of(worker: Worker, from: &Path, stream: StreamOptions) -> Outcome<Self> {
        worker.say(&ToWorker::OpenSource { hop: HOP, stream })?;
        Ok(Self {
            worker,
            from: from.to_owned(),
            entries: entries(from)?,
            opened: 0,
            consumed: 0,
            sent: None,
        })
    }

    /// Hands the manifest over.
    pub fn announce(&self) -> Outcome {
        let totals = Some(manifest::totals(&self.entries));
        self.worker.say(&ToWorker::Manifest { hop: HOP, entries: self.entries.clone(), totals })
    }

    /// Opens source files as far as the window allows.
    pub fn open_files(&mut self) -> Outcome {
        let files = files(&self.entries);
        while self.opened < files.len().min(self.consumed + OPEN_WINDOW) {
            let last = files.len().min(self.consumed + OPEN_WINDOW).min(self.opened + BATCH);
            let batch = &files[self.opened..last];
            let open = |index: &u32| {
                File::open(self.from.join(self.entries[*index as usize].path.display())).map(OwnedFd::from)
            };
            let descriptors = batch.iter().map(open).collect::<Result<Vec<_>, _>>()?;
            let message = ToWorker::Files { hop: HOP, files: to_read(batch) };
            self.worker.say_with(&message, &borrowed(&descriptors))?;
            self.opened = last;
        }
        Ok(())
    }

    /// Takes all that is there; false when there was nothing.
    pub fn take_all(&mut self) -> Outcome<bool> {
        let mut any = false;
        while let Ok(event) = self.worker.events.try_recv() {
            any = true;
            self.said(event)?;
        }
        Ok(any)
    }

    pub fn said(&mut self, event: FromWorker) -> Outcome {
        match event {
            FromWorker::Consumed { hop: HOP, below, .. } => {
                self.consumed = files(&self.entries).iter().filter(|index| **index < below).count();
                self.open_files()?;
            }
            FromWorker::Sent { hop: HOP, counters } => self.sent = Some(counters),
            FromWorker::Progress { .. } => {}
            FromWorker::Failed { failure, .. } => return Err(failure.into()),
            other => return Err(format!("the source said {other:?}").into()),
        }
        Ok(())
    }

    pub fn hang_up(self) -> Outcome<std::process::ExitStatus> {
        self.worker.hang_up()
    }
}

impl std::ops::Deref for SourceEnd {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.worker
    }
}

/// One hop under way.
pub struct Conductor {
    pub source: SourceEnd,
    pub target: TargetEnd,
}

impl Conductor {
    /// Opens both sides and connects them.
    pub fn start(from: &Path, to: &Path, stream: StreamOptions, corrupt_chunk: Option<u64>) -> Outcome<Self> {
        Self::start_with(from, to, stream, corrupt_chunk, true)
    }

    /// As `start`; with `careful` every file is made anew and read back, without it what stands there is overwritten.
    pub fn start_with(
        from: &Path,
        to: &Path,
        stream: StreamOptions,
        corrupt_chunk: Option<u64>,
        careful: bool,
    ) -> Outcome<Self> {
        Self::meet(SourceEnd::open(from, stream, corrupt_chunk)?, TargetEnd::open(to, stream, careful, None)?)
    }

    /// Connects two sides that are open.
    pub fn meet(source: SourceEnd, target: TargetEnd) -> Outcome<Self> {
        let (agent, offer) = (prepared(&source)?, prepared(&target)?);
        source.say(&ToWorker::Connect { hop: HOP, metadata: offer, worker: target.name.clone() })?;
        target.say(&ToWorker::Connect { hop: HOP, metadata: agent, worker: source.name.clone() })?;
        source.announce()?;
        Ok(Self { source, target })
    }

    /// Conducts until both sides are done. Then the target is told to end, and the source's hop is closed.
    pub fn run(&mut self) -> Outcome {
        self.run_with(|_| Ok(()))
    }

    /// As `run`; `look` sees both workers when all is done and before they end.
    pub fn run_with(&mut self, look: impl FnOnce(&Self) -> Outcome) -> Outcome {
        self.source.open_files()?;
        while self.source.sent.is_none() || self.target.arrived.is_none() {
            // One after the other without blocking either: a hop needs both.
            if !(self.source.take_all()? | self.target.take_all()?) {
                let waits = if self.target.arrived.is_none() { &*self.target } else { &*self.source };
                match waits.events.recv_timeout(std::time::Duration::from_millis(2)) {
                    Ok(event) if self.target.arrived.is_none() => self.target.said(event)?,
                    Ok(event) => self.source.said(event)?,
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        look(self)?;
        self.target.say(&ToWorker::Finished { hop: HOP })?;
        assert!(self.target.exit()?.success());
        self.source.say(&ToWorker::Close { hop: HOP })
    }

    /// The target's whole manifest, which must be the source's.
    pub fn await_manifest(&mut self) -> Outcome {
        assert_eq!(self.target.await_manifest()?, self.source.entries);
        Ok(())
    }
}

/// The failure with which a worker's hop ends; what it says before is given too.
pub fn failure(worker: &Worker) -> Outcome<(Failure, Vec<FromWorker>)> {
    let mut before = Vec::new();
    loop {
        match worker.next()? {
            FromWorker::Failed { hop: HOP, failure } => return Ok((failure, before)),
            other => before.push(other),
        }
    }
}

pub fn prepared(worker: &Worker) -> Outcome<String> {
    prepared_as(worker, HOP)
}

/// The metadata of one of a worker's hops.
pub fn prepared_as(worker: &Worker, expected: HopId) -> Outcome<String> {
    match worker.next()? {
        FromWorker::Prepared { hop, metadata } if hop == expected => Ok(metadata),
        other => Err(format!("not prepared: {other:?}").into()),
    }
}

/// Files to read of which nothing is known.
pub fn to_read(indices: &[u32]) -> Vec<FileToRead> {
    indices.iter().map(|index| FileToRead { index: *index, known: None, memory: false }).collect()
}

/// A file to write of which nothing is here but what may stand at the destination.
pub fn to_write(index: u32, compare: bool) -> FileToWrite {
    FileToWrite { index, compare, known: None, prefix: None, memory: false }
}

/// The places of a manifest's regular files.
pub fn files(entries: &[Entry]) -> Vec<u32> {
    let file = |(index, entry): (usize, &Entry)| {
        matches!(entry.kind, EntryKind::File { .. }).then_some(index as u32)
    };
    entries.iter().enumerate().filter_map(file).collect()
}
