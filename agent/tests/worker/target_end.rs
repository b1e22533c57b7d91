//! Plays control for one receiving end: opens files at the destination, in their place (no partial names, no locks: those
//! are control's own matter), and keeps what the worker says.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use transfer_agent::protocol::entry::{Entry, Totals};
use transfer_agent::protocol::{
    Counters, FileToWrite, FromWorker, HopId, OPEN_WINDOW, Prefix, StoredFile, StreamOptions, ToWorker, Used,
};

use super::Outcome;
use super::conductor::{HOP, files};
use super::process::Worker;

/// Files of one message: a comparison takes a second descriptor.
const BATCH: usize = 32;

pub struct TargetEnd {
    worker: Worker,
    to: PathBuf,
    /// Every file is made anew, and what stands there is compared and written beside.
    careful: bool,
    /// What an earlier attempt has left of files, by name. They are written where they stand.
    pub prefixes: HashMap<String, Prefix>,
    received: Vec<Entry>,
    complete: bool,
    partials: usize,
    pub stored: Vec<StoredFile>,
    pub durable: Vec<(u32, Prefix)>,
    pub arrived: Option<Counters>,
    /// How a relay's sending side ended.
    pub relayed: Option<Result<Counters, transfer_agent::protocol::Failure>>,
    /// What its UCX moves the bytes with.
    pub used: Option<Used>,
    relay: Option<HopId>,
}

impl TargetEnd {
    /// Opens the hop; with a relay's number also that.
    pub fn open(to: &Path, stream: StreamOptions, careful: bool, relay: Option<HopId>) -> Outcome<Self> {
        Self::of(Worker::start("target", None)?, to, stream, careful, relay)
    }

    /// As `open`, in a worker that is there.
    pub fn of(
        worker: Worker,
        to: &Path,
        stream: StreamOptions,
        careful: bool,
        relay: Option<HopId>,
    ) -> Outcome<Self> {
        let key = uuid::Uuid::new_v4().to_string();
        worker.say(&ToWorker::OpenTarget { hop: HOP, stream, read_back: careful, key, forward: relay })?;
        Ok(Self {
            worker,
            to: to.to_owned(),
            careful,
            prefixes: HashMap::new(),
            received: Vec::new(),
            complete: false,
            partials: 0,
            stored: Vec::new(),
            durable: Vec::new(),
            arrived: None,
            relayed: None,
            used: None,
            relay,
        })
    }

    /// Opens files at the destination as far as the window allows.
    pub fn open_partials(&mut self) -> Outcome {
        let all = files(&self.received);
        while self.complete && self.partials < all.len().min(self.stored.len() + OPEN_WINDOW) {
            let last = all.len().min(self.stored.len() + OPEN_WINDOW).min(self.partials + BATCH);
            let (mut files, mut descriptors) = (Vec::new(), Vec::new());
            for index in &all[self.partials..last] {
                let name = self.received[*index as usize].path.display();
                let place = self.to.join(&name);
                let prefix = self.prefixes.get(&name).cloned();
                let existing = File::open(&place).ok().filter(|_| self.careful && prefix.is_none());
                let compare = existing.is_some();
                let new = self.careful && prefix.is_none();
                let partial = if compare { place.with_extension("beside") } else { place };
                let mut how = OpenOptions::new();
                descriptors.push(OwnedFd::from(
                    how.read(true).write(true).create(true).create_new(new).open(partial)?,
                ));
                descriptors.extend(existing.map(OwnedFd::from));
                files.push(FileToWrite { index: *index, compare, known: None, prefix, memory: false });
            }
            let descriptors: Vec<_> = descriptors.iter().map(OwnedFd::as_fd).collect();
            self.worker.say_with(&ToWorker::Partials { hop: HOP, files }, &descriptors)?;
            self.partials = last;
        }
        Ok(())
    }

    /// The whole manifest.
    pub fn await_manifest(&mut self) -> Outcome<Vec<Entry>> {
        loop {
            let event = self.worker.next()?;
            if let FromWorker::Uses { used, .. } = event {
                self.used = Some(used);
                continue;
            }
            if self.manifest_said(event)?.is_some() {
                return Ok(self.received.clone());
            }
        }
    }

    fn manifest_said(&mut self, event: FromWorker) -> Outcome<Option<Totals>> {
        let FromWorker::Manifest { hop: HOP, entries, totals } = event else {
            return Err(format!("the target said {event:?}").into());
        };
        self.received.extend(entries);
        self.complete = totals.is_some();
        Ok(totals)
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
            FromWorker::Stored { hop: HOP, files } => {
                self.stored.extend(files);
                self.open_partials()?;
            }
            FromWorker::Durable { hop: HOP, index, length, digest } => {
                self.durable.push((index, Prefix { length, digest }));
            }
            FromWorker::Received { hop: HOP, counters } => self.arrived = Some(counters),
            FromWorker::Progress { .. } => {}
            FromWorker::Uses { hop: HOP, used } => self.used = Some(used),
            FromWorker::Sent { hop, counters } if Some(hop) == self.relay => {
                self.relayed = Some(Ok(counters))
            }
            FromWorker::Failed { hop, failure } if Some(hop) == self.relay => {
                self.relayed = Some(Err(failure))
            }
            FromWorker::Failed { failure, .. } => return Err(failure.into()),
            other => {
                if self.manifest_said(other)?.is_some() {
                    self.open_partials()?;
                }
            }
        }
        Ok(())
    }
}

impl Deref for TargetEnd {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.worker
    }
}

impl DerefMut for TargetEnd {
    fn deref_mut(&mut self) -> &mut Worker {
        &mut self.worker
    }
}
