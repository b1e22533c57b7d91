//! The receiving side: a manifest is checked as a whole before anything is changed; files arrive in partial files and
//! get their names one by one. Nothing is ever deleted but our own partial files. Does I/O, blocking.

pub mod attributes;
mod begin;
mod check;
mod commit;
mod directories;
mod earlier;
mod naming;
mod parents;
mod partials;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nixl_transfer_crds::{Algorithm, ContentDigest, Reason, WritePolicy};

use super::journal::{Book, Journal, Record};
use super::path::VolumePath;
use super::place::{RunPlace, partial_name};
use super::{DestinationLock, Memory, Volume};
use crate::manifest;
use crate::protocol::Failure;
use crate::protocol::entry::{Entry, EntryKind, Totals};
use begin::Compared;
pub use begin::OpenedPartial;
pub use earlier::Resume;
use parents::{DirectoryId, Parents};
use partials::Partials;

/// One hop's destination. Dropping it removes what the hop has not completed, unless it is to be kept for the next attempt;
/// the worker that wrote the partial files must be gone by then.
#[derive(Debug)]
pub struct Destination {
    volume: Arc<Volume>,
    path: VolumePath,
    policy: WritePolicy,
    algorithm: Algorithm,
    source_node: String,
    journal: Mutex<Journal>,
    partials: Partials,
    entries: Vec<Entry>,
    /// Bytes of their paths and links.
    text: usize,
    /// Known when the manifest is complete and was found good.
    totals: Option<Totals>,
    /// What the journal said, until it is matched with the complete manifest.
    book: Book,
    /// What earlier attempts have left of each entry.
    earlier: earlier::Left,
    /// For each entry whether something stood at its place when the manifest was checked.
    stood: Vec<bool>,
    files: HashMap<u32, FileState>,
    /// Directories that got a new name in them; synced at the end, each once.
    touched: BTreeMap<Vec<u8>, DirectoryId>,
    parents: Parents,
    keep: Keep,
    memory: Option<Memory>,
    _lock: DestinationLock,
}

/// How far a file is.
#[derive(Debug)]
enum FileState {
    /// A partial file exists.
    Partial {
        inode: u64,
        /// The journal says of it that some of it is on disk.
        durable: bool,
        /// The file at the destination that is compared with it, if one is.
        compared: Option<Compared>,
    },
    /// It is at the destination.
    Committed { digest: Vec<u8> },
}

impl FileState {
    fn is_durable(&self) -> bool {
        matches!(self, Self::Partial { durable: true, .. })
    }
}

/// What stays for the next attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: none follows.
    #[default]
    Nothing,
    /// No partial file. But what this run has committed stays known as its own, where that is more than a saving:
    /// under `FailIfExists`.
    Committed,
    /// Partial files as far as they are durable, and all that the journal says.
    All,
}

/// Whether a file may get its name now: asked by any thread, right before it does.
pub type MayCommit<'a> = dyn Fn() -> bool + Sync + 'a;

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It has its name now.
    Replaced,
    /// The file that stood there has the same content and was left alone.
    Skipped,
}

impl Destination {
    /// Takes up a destination, where an earlier attempt of the same place has left it if one has. Makes nothing but the
    /// directory for partial files. `source_node` is the node that sends, `algorithm` the one of all digests.
    ///
    /// # Errors
    /// `VolumeReadOnly`, `InvalidPath`, `DestinationBusy` while another process is at work on the place, and what the file
    /// system says.
    pub fn open(
        volume: &Arc<Volume>,
        path: &str,
        policy: WritePolicy,
        place: &RunPlace,
        source_node: &str,
        algorithm: Algorithm,
        lock: DestinationLock,
    ) -> Result<Self, Failure> {
        if volume.read_only {
            let message = format!("volume {} is published read-only: choose another volume", volume.name);
            return Err(Failure::new(Reason::VolumeReadOnly, message));
        }
        let path = volume.parse(path)?;
        let (partials, journal, book) = Partials::open(volume, place, algorithm, source_node)?;
        Ok(Self {
            volume: Arc::clone(volume),
            path,
            policy,
            algorithm,
            source_node: source_node.to_owned(),
            journal: Mutex::new(journal),
            partials,
            entries: Vec::new(),
            text: 0,
            totals: None,
            book,
            earlier: HashMap::new(),
            stood: Vec::new(),
            files: HashMap::new(),
            touched: BTreeMap::new(),
            parents: Parents::default(),
            keep: Keep::Nothing,
            memory: None,
            _lock: lock,
        })
    }

    /// Has it know digests of files that were read before.
    pub fn remembering(mut self, memory: Memory) -> Self {
        self.memory = Some(memory);
        self
    }

    /// Takes a part of the manifest. With the last one, which has `totals`, all of it is checked against the rules and
    /// against what stands at the destination; only then directories are made.
    ///
    /// # Errors
    /// `InvalidPath`, `DestinationExists`, `InsufficientSpace`, `IntegrityError`, and what the file system says.
    pub fn accept(&mut self, entries: Vec<Entry>, totals: Option<Totals>) -> Result<(), Failure> {
        if self.manifest_complete() {
            return Err(Failure::new(Reason::IntegrityError, "the manifest goes on after its end"));
        }
        self.text += entries.iter().map(manifest::text).sum::<usize>();
        if self.entries.len().saturating_add(entries.len()) > manifest::MAX_ENTRIES
            || self.text > manifest::MAX_TEXT
        {
            return Err(Failure::new(
                Reason::IntegrityError,
                "the manifest is larger than any source makes it",
            ));
        }
        self.entries.extend(entries);
        if let Some(totals) = totals {
            manifest::check(&self.entries, totals)?;
            self.take_up()?;
            self.stood = check::against_destination(
                &self.volume,
                &self.path,
                self.policy,
                &self.entries,
                &self.earlier,
            )?;
            self.make_directories()?;
            self.totals = Some(totals);
        }
        Ok(())
    }

    /// Whether the manifest is complete and the destination prepared.
    pub fn manifest_complete(&self) -> bool {
        self.totals.is_some()
    }

    /// What the manifest adds up to, once it is complete.
    pub fn totals(&self) -> Option<Totals> {
        self.totals
    }

    /// Places of the manifest's regular files, ascending: what [`Destination::partial`] is asked for.
    pub fn file_indices(&self) -> impl Iterator<Item = u32> + '_ {
        let files =
            self.entries.iter().enumerate().filter(|(_, entry)| matches!(entry.kind, EntryKind::File { .. }));
        files.filter_map(|(index, _)| u32::try_from(index).ok())
    }

    /// Says what is to stay when this is dropped; without it nothing does.
    pub fn keep(&mut self, keep: Keep) {
        self.keep = keep;
    }

    /// When every file is committed: makes links, each asking `may_commit` right before, gives directories their modes
    /// and times, and syncs each directory that has changed, once. Gives the digest of what was moved.
    ///
    /// # Errors
    /// `IntegrityError` when a file is missing, else as [`Destination::commit`].
    pub fn finish(&mut self, algorithm: Algorithm, may_commit: &MayCommit) -> Result<ContentDigest, Failure> {
        let Some(totals) = self.totals else {
            return Err(Failure::new(Reason::IntegrityError, "the manifest never ended"));
        };
        let committed =
            self.files.values().filter(|state| matches!(state, FileState::Committed { .. })).count();
        if committed as u64 != totals.files {
            let message = format!("{committed} of {} files were stored", totals.files);
            return Err(Failure::new(Reason::IntegrityError, message));
        }
        self.make_links(may_commit)?;
        self.finish_directories()?;
        let of_file = |index| match self.files.get(&index) {
            Some(FileState::Committed { digest }) => Some(digest.as_slice()),
            _ => None,
        };
        manifest::digest(algorithm, &self.entries, of_file)
            .ok_or_else(|| Failure::new(Reason::IntegrityError, "a file has no digest"))
    }

    /// The place and size of a regular file of the manifest.
    fn file(&self, index: u32) -> Result<(VolumePath, u64), Failure> {
        if self.totals.is_none() {
            return Err(Failure::new(Reason::IntegrityError, "the manifest is not complete"));
        }
        match self.entries.get(index as usize) {
            Some(Entry { path, kind: EntryKind::File { size, .. } }) => {
                Ok((self.volume.join(&self.path, &path.0)?, *size))
            }
            _ => Err(Failure::new(Reason::IntegrityError, format!("entry {index} is no regular file"))),
        }
    }

    /// Name of the partial file of an entry.
    fn partial_name(&self, index: u32) -> Result<String, Failure> {
        let entry = self.entries.get(index as usize);
        entry
            .map(|entry| partial_name(&entry.path.0))
            .ok_or_else(|| Failure::new(Reason::IntegrityError, format!("there is no entry {index}")))
    }

    /// Every record is whole when it is let go, so a panic elsewhere leaves it good.
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disagrees(&self, path: &VolumePath, what: &str) -> Failure {
        Failure::new(Reason::IntegrityError, format!("{} {what}", self.volume.place(path)))
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        let mut kept = self.worth_keeping();
        if self.keep != Keep::All {
            for (_, path) in kept.drain() {
                self.journal().append(&Record::Forgotten { path });
            }
        }
        let journal = match self.keep {
            Keep::Nothing => false,
            Keep::Committed => self.policy == WritePolicy::FailIfExists && self.journal().is_useful(),
            Keep::All => !kept.is_empty() || self.journal().is_useful(),
        };
        // This attempt's own, whoever holds them: its worker is gone.
        for (index, state) in &self.files {
            if let (FileState::Partial { .. }, Ok(name)) = (state, self.partial_name(*index))
                && !kept.contains_key(&name)
            {
                self.partials.unlink(&name);
            }
        }
        self.partials.sweep(&kept);
        if !journal {
            self.partials.remove();
        }
    }
}

#[cfg(test)]
mod tests;
