//! The receiving side: a manifest is checked as a whole before anything is changed; files arrive in partial files and
//! get their names one by one. Nothing is ever deleted but our own partial files. Does I/O, blocking.

pub mod attributes;
mod check;
mod commit;
mod directories;
mod partials;

use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nixl_transfer_crds::{Algorithm, ContentDigest, Reason, WritePolicy};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;

use super::identity::Identity;
use super::path::VolumePath;
use super::place::{RunPlace, partial_name};
use super::{DestinationLock, Volume, beneath};
use crate::manifest;
use crate::protocol::entry::{Entry, EntryKind, Totals};
use crate::protocol::{Failure, StoredFile};
use partials::Partials;

/// One hop's destination. Dropping it removes the partial files; the worker that wrote them must be gone by then.
#[derive(Debug)]
pub struct Destination {
    volume: Arc<Volume>,
    path: VolumePath,
    policy: WritePolicy,
    partials: Partials,
    entries: Vec<Entry>,
    /// Bytes of their paths and links.
    text: usize,
    /// Known when the manifest is complete and was found good.
    totals: Option<Totals>,
    files: HashMap<u32, FileState>,
    /// Directories that got a new name in them; synced at the end, each once.
    touched: BTreeSet<Vec<u8>>,
    _lock: DestinationLock,
}

/// How far a file is.
#[derive(Debug)]
enum FileState {
    /// A partial file exists; the file at the destination that is compared with it, if one is.
    Partial { inode: u64, compared: Option<Identity> },
    /// It is at the destination.
    Committed { digest: Vec<u8> },
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It has its name now.
    Replaced,
    /// The file that stood there has the same content and was left alone.
    Skipped,
}

impl Destination {
    /// Takes up a destination. Makes nothing but the directory for partial files.
    ///
    /// # Errors
    /// `VolumeReadOnly`, `InvalidPath`, and what the file system says.
    pub fn open(
        volume: &Arc<Volume>,
        path: &str,
        policy: WritePolicy,
        place: &RunPlace,
        lock: DestinationLock,
    ) -> Result<Self, Failure> {
        if volume.read_only {
            let message = format!("volume {} is published read-only: choose another volume", volume.name);
            return Err(Failure::new(Reason::VolumeReadOnly, message));
        }
        let path = volume.parse(path)?;
        let partials = Partials::open(volume, place)?;
        Ok(Self {
            volume: Arc::clone(volume),
            path,
            policy,
            partials,
            entries: Vec::new(),
            text: 0,
            totals: None,
            files: HashMap::new(),
            touched: BTreeSet::new(),
            _lock: lock,
        })
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
            check::against_destination(&self.volume, &self.path, self.policy, &self.entries)?;
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

    /// Makes the partial file for an entry, locked by its descriptor, and gives the file that stands at the destination
    /// beside it when it may turn out to be identical.
    pub fn partial(&mut self, index: u32) -> Result<(OwnedFd, Option<OwnedFd>), Failure> {
        let (path, size) = self.file(index)?;
        if self.files.contains_key(&index) {
            return Err(Failure::new(
                Reason::IoError,
                format!("{} was begun before", self.volume.place(&path)),
            ));
        }
        let file = self.partials.create(&self.partial_name(index)?)?;
        let inode = fstat(&file).map_err(|error| self.volume.failure("reading", &path, error))?.st_ino;
        let (standing, compared) = match self.policy {
            WritePolicy::SkipIdentical => self.standing(&path, size)?.unzip(),
            WritePolicy::Overwrite | WritePolicy::FailIfExists => (None, None),
        };
        self.files.insert(index, FileState::Partial { inode, compared });
        Ok((file, standing))
    }

    /// Gives a stored file its name, or leaves the identical one alone. `may_commit` is asked right before.
    ///
    /// # Errors
    /// `AgentNotReady` when `may_commit` says no; `IntegrityError` when the partial is not what it should be;
    /// `DestinationExists` when something has come to stand there.
    pub fn commit(&mut self, file: &StoredFile, may_commit: &dyn Fn() -> bool) -> Result<Committed, Failure> {
        self.commit_file(file, may_commit)
    }

    /// When every file is committed: makes links, each asking `may_commit` right before, gives directories their modes
    /// and times, and syncs each directory that has changed, once. Gives the digest of what was moved.
    ///
    /// # Errors
    /// `IntegrityError` when a file is missing, else as [`Destination::commit`].
    pub fn finish(
        &mut self,
        algorithm: Algorithm,
        may_commit: &dyn Fn() -> bool,
    ) -> Result<ContentDigest, Failure> {
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

    /// The regular file of that size which stands at a place.
    fn standing(&self, path: &VolumePath, size: u64) -> Result<Option<(OwnedFd, Identity)>, Failure> {
        let (handle, stat) = match beneath::locate(self.volume.root(), path) {
            Ok(located) => located,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.volume.failure("opening", path, error)),
        };
        if beneath::kind(&stat) != FileType::RegularFile || u64::try_from(stat.st_size) != Ok(size) {
            return Ok(None);
        }
        let opened = beneath::read_located(&handle);
        opened
            .map(|file| Some((file, Identity::of(&stat))))
            .map_err(|error| self.volume.failure("opening", path, error))
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        for (index, state) in &self.files {
            if let (FileState::Partial { .. }, Ok(name)) = (state, self.partial_name(*index)) {
                self.partials.unlink(&name);
            }
        }
        self.partials.remove();
    }
}

#[cfg(test)]
mod tests;
