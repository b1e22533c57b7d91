//! Plays control for one hop between two workers: a flat directory is moved into another one, file by file into its
//! place (no partial names, no locks: those are control's own matter).

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nixl_transfer_crds::Algorithm;
use transfer_agent::manifest;
use transfer_agent::protocol::entry::{Entry, EntryKind, RelativePath, Time, Totals};
use transfer_agent::protocol::{
    Counters, Failure, FromWorker, HopId, OPEN_WINDOW, StoredFile, StreamOptions, ToWorker,
};

use super::Outcome;
use super::process::{Worker, borrowed};

pub const HOP: HopId = HopId(3);
/// Descriptors of one message; of a target's half, since a comparison takes a second one.
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

/// One hop under way.
pub struct Conductor {
    pub source: Worker,
    pub target: Worker,
    from: PathBuf,
    to: PathBuf,
    careful: bool,
    entries: Vec<Entry>,
    received: Vec<Entry>,
    opened: usize,
    consumed: usize,
    partials: usize,
    pub stored: Vec<StoredFile>,
    pub sent: Option<Counters>,
    pub arrived: Option<Counters>,
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
        let (source, target) = (Worker::start("source", corrupt_chunk)?, Worker::start("target", None)?);
        source.say(&ToWorker::OpenSource { hop: HOP, stream })?;
        let key = uuid::Uuid::new_v4().to_string();
        target.say(&ToWorker::OpenTarget { hop: HOP, stream, read_back: careful, key })?;
        let (agent, offer) = (prepared(&source)?, prepared(&target)?);
        source.say(&ToWorker::Connect { hop: HOP, metadata: offer, worker: target.name.clone() })?;
        target.say(&ToWorker::Connect { hop: HOP, metadata: agent, worker: source.name.clone() })?;
        let entries = entries(from)?;
        let totals = Some(manifest::totals(&entries));
        let hop = HOP;
        source.say(&ToWorker::Manifest { hop, entries: entries.clone(), totals })?;
        let conductor = Self {
            source,
            target,
            from: from.to_owned(),
            to: to.to_owned(),
            careful,
            entries,
            received: Vec::new(),
            opened: 0,
            consumed: 0,
            partials: 0,
            stored: Vec::new(),
            sent: None,
            arrived: None,
        };
        Ok(conductor)
    }

    /// Conducts until both sides are done. Then the target is told to end, and the source's hop is closed.
    pub fn run(&mut self) -> Outcome {
        self.run_with(|_| Ok(()))
    }

    /// As `run`; `look` sees both workers when all is done and before they end.
    pub fn run_with(&mut self, look: impl FnOnce(&Self) -> Outcome) -> Outcome {
        self.open_files()?;
        while self.sent.is_none() || self.arrived.is_none() {
            // One after the other without blocking either: a hop needs both.
            let mut idle = true;
            while let Ok(event) = self.source.events.try_recv() {
                idle = false;
                self.source_said(event)?;
            }
            while let Ok(event) = self.target.events.try_recv() {
                idle = false;
                self.target_said(event)?;
            }
            if idle {
                let waits = if self.arrived.is_none() { &self.target } else { &self.source };
                let step = std::time::Duration::from_millis(2);
                match waits.events.recv_timeout(step) {
                    Ok(event) if self.arrived.is_none() => self.target_said(event)?,
                    Ok(event) => self.source_said(event)?,
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

    /// Opens source files as far as the window allows.
    pub fn open_files(&mut self) -> Outcome {
        let files = files(&self.entries);
        while self.opened < files.len().min(self.consumed + OPEN_WINDOW) {
            let last = files.len().min(self.consumed + OPEN_WINDOW).min(self.opened + BATCH);
            let batch = &files[self.opened..last];
            let open = |index: &u32| File::open(self.from.join(self.path(*index))).map(OwnedFd::from);
            let descriptors = batch.iter().map(open).collect::<Result<Vec<_>, _>>()?;
            let message = ToWorker::Files { hop: HOP, indices: batch.to_vec() };
            self.source.say_with(&message, &borrowed(&descriptors))?;
            self.opened = last;
        }
        Ok(())
    }

    /// Opens files at the destination as far as the window allows. One that stands there already is to be compared, and
    /// is written beside.
    pub fn open_partials(&mut self) -> Outcome {
        let files = files(&self.entries);
        while self.partials < files.len().min(self.stored.len() + OPEN_WINDOW) {
            let last = files.len().min(self.stored.len() + OPEN_WINDOW).min(self.partials + BATCH);
            let batch = &files[self.partials..last];
            let (mut compare, mut descriptors) = (Vec::new(), Vec::new());
            for index in batch {
                let place = self.to.join(self.path(*index));
                let existing = File::open(&place).ok().filter(|_| self.careful);
                compare.push(existing.is_some());
                let name = if existing.is_some() { place.with_extension("beside") } else { place };
                let mut how = OpenOptions::new();
                let new = how.read(true).write(true).create_new(self.careful).open(name)?;
                descriptors.push(OwnedFd::from(new));
                descriptors.extend(existing.map(OwnedFd::from));
            }
            let message = ToWorker::Partials { hop: HOP, indices: batch.to_vec(), compare };
            let descriptors: Vec<_> = descriptors.iter().map(OwnedFd::as_fd).collect();
            self.target.say_with(&message, &descriptors)?;
            self.partials = last;
        }
        Ok(())
    }

    /// The target's whole manifest, which must be the source's.
    pub fn await_manifest(&mut self) -> Outcome {
        loop {
            let event = self.target.next()?;
            if self.manifest_said(event)?.is_some() {
                return Ok(());
            }
        }
    }

    fn manifest_said(&mut self, event: FromWorker) -> Outcome<Option<Totals>> {
        let FromWorker::Manifest { hop: HOP, entries, totals } = event else {
            return Err(format!("the target said {event:?}").into());
        };
        self.received.extend(entries);
        if totals.is_some() {
            assert_eq!(self.received, self.entries);
        }
        Ok(totals)
    }

    fn source_said(&mut self, event: FromWorker) -> Outcome {
        match event {
            FromWorker::Consumed { hop: HOP, below } => {
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

    fn target_said(&mut self, event: FromWorker) -> Outcome {
        match event {
            FromWorker::Stored { hop: HOP, files } => {
                self.stored.extend(files);
                self.open_partials()?;
            }
            FromWorker::Received { hop: HOP, counters } => self.arrived = Some(counters),
            FromWorker::Progress { .. } => {}
            FromWorker::Failed { failure, .. } => return Err(failure.into()),
            other => {
                if self.manifest_said(other)?.is_some() {
                    self.open_partials()?;
                }
            }
        }
        Ok(())
    }

    fn path(&self, index: u32) -> String {
        self.entries[index as usize].path.display()
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
    match worker.next()? {
        FromWorker::Prepared { hop: HOP, metadata } => Ok(metadata),
        other => Err(format!("not prepared: {other:?}").into()),
    }
}

fn files(entries: &[Entry]) -> Vec<u32> {
    let file = |(index, entry): (usize, &Entry)| {
        matches!(entry.kind, EntryKind::File { .. }).then_some(index as u32)
    };
    entries.iter().enumerate().filter_map(file).collect()
}
