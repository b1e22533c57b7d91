//! The sending side of a volume: what is moved, entry by entry, and its files opened for reading. Nothing but regular
//! files is ever opened, and no file twice under one name when it is not the same any more. Does I/O.

mod walk;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicBool;

use nixl_transfer_crds::{Algorithm, Reason, endpoint::SourceVolume};
use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::io::Errno;

use super::identity::Identity;
use super::path::VolumePath;
use super::{Memory, Volume, beneath, parallel};
use crate::protocol::Failure;
use crate::protocol::entry::{Entry, Time, Totals};

/// To read a smaller file again costs less than to find out that it is the same.
const WORTH: u64 = 64 << 10;

/// A file, or a directory with all that is moved of it, as it was when it was walked.
#[derive(Debug)]
pub struct SourceTree {
    entries: Vec<Entry>,
    /// One for each entry: of regular files, what they were.
    identities: Vec<Option<Identity>>,
    totals: Totals,
    /// The directory that is moved, or the one that holds the file that is moved alone.
    directory: OwnedFd,
    /// Name of the file that is moved alone.
    alone: Option<Vec<u8>>,
    base: VolumePath,
    volume: String,
    /// Right before the walk.
    walked: Time,
    memory: Option<(Memory, Algorithm)>,
}

impl SourceTree {
    /// Finds all that is moved. Entries come sorted by the bytes of their paths, the root first.
    ///
    /// # Errors
    /// `SourceNotFound`, `SourceEmpty`, `NotRegularFile`, `InvalidPath`, `InvalidSpec` for globs, `SourceChanged` when
    /// something vanishes meanwhile, `Cancelled`, `IoError`.
    pub fn walk(volume: &Volume, source: &SourceVolume, cancelled: &AtomicBool) -> Result<Self, Failure> {
        walk::walk(volume, source, cancelled)
    }

    /// The manifest.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What the manifest adds up to.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Opens regular files of the manifest for reading, in that order.
    ///
    /// # Errors
    /// `SourceChanged` when one is not the file that was walked any more, `IoError` when it cannot be read: of the first
    /// of them with an error.
    pub fn open(&self, indices: &[u32]) -> Result<Vec<OwnedFd>, Failure> {
        parallel::each(indices, |index| {
            let handle = self.locate(*index)?;
            let opened = beneath::read_located(&handle);
            opened.map_err(|error| beneath::failure("opening", &self.place(*index), error))
        })
        .into_iter()
        .collect()
    }

    /// Has it know digests of files that were read before, by this algorithm.
    pub fn remembering(self, memory: Memory, algorithm: Algorithm) -> Self {
        Self { memory: Some((memory, algorithm)), ..self }
    }

    /// The digest of a regular file, if it is known and the file was still as it was read when it was walked. Whether it
    /// still is, [`SourceTree::open`] tells.
    pub fn known(&self, index: u32) -> Option<Vec<u8>> {
        let (memory, algorithm) = self.memory.as_ref()?;
        memory.known(self.identities.get(index as usize)?.as_ref()?, *algorithm)
    }

    /// Remembers the digest of a file that was opened here, if it is still as it was walked.
    pub fn remember(&self, index: u32, digest: &[u8]) {
        let Some((memory, algorithm)) = &self.memory else { return };
        if self.identities.get(index as usize).is_none_or(|file| file.is_none_or(|file| file.size < WORTH)) {
            return;
        }
        // The same before the walk and now, so no byte has changed while it was read.
        if self.locate(index).is_ok()
            && let Some(Some(file)) = self.identities.get(index as usize)
        {
            memory.remember(file, *algorithm, digest, self.walked);
        }
    }

    fn locate(&self, index: u32) -> Result<OwnedFd, Failure> {
        let Some(Some(before)) = self.identities.get(index as usize) else {
            let message = format!("entry {index} of the manifest is no regular file");
            return Err(Failure::new(Reason::IoError, message));
        };
        let path = self.alone.as_deref().unwrap_or(&self.entries[index as usize].path.0);
        let handle = match beneath::open_bytes(self.directory.as_fd(), path, OFlags::PATH, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(self.changed(index, "is gone")),
            other => other.map_err(|error| beneath::failure("opening", &self.place(index), error))?,
        };
        let stat = fstat(&handle).map_err(|error| beneath::failure("reading", &self.place(index), error))?;
        let now = Identity::of(&stat);
        if beneath::kind(&stat) != FileType::RegularFile {
            return Err(self.changed(index, "was replaced"));
        }
        if now.size != before.size {
            let how = format!("changed its size from {} to {} bytes", before.size, now.size);
            return Err(self.changed(index, &how));
        }
        if now != *before {
            return Err(self.changed(index, "was written or replaced"));
        }
        Ok(handle)
    }

    fn changed(&self, index: u32, how: &str) -> Failure {
        let place = self.place(index);
        let remedy = "let its writer finish first, or move a snapshot";
        Failure::new(Reason::SourceChanged, format!("{place} {how} while it was moved: {remedy}"))
    }

    fn place(&self, index: u32) -> String {
        let entry = &self.entries[index as usize];
        let path = self.base.join(&entry.path.0).map_or_else(|_| entry.path.display(), |path| path.display());
        format!("{path} in volume {}", self.volume)
    }
}

#[cfg(test)]
mod tests;
