//! A file is begun, or gone on with, and what is durable of it is told. Does I/O.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use nixl_transfer_crds::{Reason, WritePolicy};
use rustix::fs::{FileType, Stat, fstat};
use rustix::io::Errno;

use super::{Destination, FileState, Resume, earlier};
use crate::digest;
use crate::manifest::MODE_MASK;
use crate::protocol::Failure;
use crate::protocol::entry::{EntryKind, Time};
use crate::volume::beneath;
use crate::volume::identity::{self, Identity};
use crate::volume::journal::Record;
use crate::volume::parallel;
use crate::volume::path::VolumePath;

/// A file at the destination that may turn out to have the same content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compared {
    pub(super) file: Identity,
    /// Before this nobody has read it.
    pub(super) since: Time,
}

/// What a worker gets for a file.
#[derive(Debug)]
pub struct OpenedPartial {
    /// The partial file, locked by this descriptor: empty, or just as long as `resume` says.
    pub partial: OwnedFd,
    /// The file at the destination, when it has the right size and its content may turn out to be the same.
    pub existing: Option<OwnedFd>,
    /// What the partial file holds already. Nobody has looked yet whether its bytes have the digest.
    pub resume: Option<Resume>,
    /// The digest of `existing`, when it is known and has not changed since: it need not be read.
    pub known: Option<Vec<u8>>,
}

impl Destination {
    /// The partial files for entries, in their order, with what there is of each already. Once per file.
    ///
    /// # Errors
    /// `DestinationBusy` while an earlier attempt's worker still holds one, and what the file system says: of the first
    /// entry with an error.
    pub fn partials(&mut self, indices: &[u32]) -> Result<Vec<OpenedPartial>, Failure> {
        self.beginnable(indices)?;
        let results = parallel::each(indices, |index| self.begin(*index));
        let mut opened = Vec::with_capacity(indices.len());
        let mut failure = None;
        for (index, result) in indices.iter().zip(results) {
            match result {
                // Also of those after a failure: their partial files are this attempt's to remove.
                Ok((partial, state)) => {
                    self.files.insert(*index, state);
                    opened.push(partial);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(opened), Err)
    }

    /// How many descriptors [`Destination::partials`] gives for an entry at most.
    pub fn descriptors(&self, index: u32) -> usize {
        1 + usize::from(self.is_compared(index))
    }

    fn beginnable(&self, indices: &[u32]) -> Result<(), Failure> {
        let mut names = HashSet::new();
        for index in indices {
            let (path, _) = self.file(*index)?;
            // Two paths may have one partial file, when somebody wants them to: whoever is second finds it held.
            if self.files.contains_key(index) || !names.insert(self.partial_name(*index)?) {
                let message = format!("{} was begun before", self.volume.place(&path));
                return Err(Failure::new(Reason::IoError, message));
            }
        }
        Ok(())
    }

    fn begin(&self, index: u32) -> Result<(OpenedPartial, FileState), Failure> {
        let (path, size) = self.file(index)?;
        let name = self.partial_name(index)?;
        let mut resume = self.earlier.get(&index).and_then(|earlier| earlier.resume.clone());
        let resumed = match &resume {
            Some(resume) => self.partials.resume(&name, resume.length)?,
            None => None,
        };
        let partial = match resumed {
            Some(partial) => partial,
            None => {
                if resume.take().is_some() {
                    self.forget(index);
                }
                self.partials.create(&name)?
            }
        };
        let inode = fstat(&partial).map_err(|error| self.volume.failure("reading", &path, error))?.st_ino;
        let since = identity::now();
        let (existing, file) = self.existing(index, &path, size)?.unzip();
        let known = file.zip(self.memory.as_ref());
        let known = known.and_then(|(file, memory)| memory.known(&file, self.algorithm));
        let compared = file.map(|file| Compared { file, since });
        let state = FileState::Partial { inode, durable: resume.is_some(), compared };
        Ok((OpenedPartial { partial, existing, resume, known }, state))
    }

    /// Whether the file was begun and is not committed yet.
    pub fn is_being_written(&self, index: u32) -> bool {
        matches!(self.files.get(&index), Some(FileState::Partial { .. }))
    }

    /// The worker has synced the first `length` bytes of a partial file, and this is their digest: the next attempt may go
    /// on from there. Before a worker writes over what was said to be durable it must say so with `length` 0.
    ///
    /// # Errors
    /// `IntegrityError` when that cannot be.
    pub fn durable(&mut self, index: u32, length: u64, digest: &[u8]) -> Result<(), Failure> {
        let (path, size) = self.file(index)?;
        let Some(FileState::Partial { inode, .. }) = self.files.get(&index) else {
            return Err(self.disagrees(&path, "is called durable and is not being written"));
        };
        let there = self.partials.look(&self.partial_name(index)?, length)?;
        if length > size
            || digest.len() != digest::length(self.algorithm)
            || there.is_none_or(|stat| stat.st_ino != *inode)
        {
            return Err(self.disagrees(&path, &format!("cannot have {length} bytes that are durable")));
        }
        if length == 0 {
            self.forget(index);
        } else if let Some(entry) = self.entries.get(index as usize)
            && let Some(source) = earlier::source_file(entry)
        {
            let (path, digest) = (entry.path.0.clone(), digest.to_vec());
            self.journal().append(&Record::Durable { path, source, length, digest });
        }
        if let Some(FileState::Partial { durable, .. }) = self.files.get_mut(&index) {
            *durable = length > 0;
        }
        Ok(())
    }

    /// Takes back what the journal says of an entry's partial file. To be done before that is no longer true.
    pub(super) fn forget(&self, index: u32) {
        if let Some(entry) = self.entries.get(index as usize) {
            self.journal().append(&Record::Forgotten { path: entry.path.0.clone() });
        }
    }

    /// The file at an entry's place, if it has the right size and is one to compare: any under `SkipIdentical`, else only
    /// what an earlier attempt of this run has put there, with the mode and time that the manifest has now. The source may
    /// have got others since, and a file that is skipped keeps its own. What has come since the manifest was checked is not
    /// compared: it is replaced, or refused, as the policy says.
    fn existing(
        &self,
        index: u32,
        path: &VolumePath,
        size: u64,
    ) -> Result<Option<(OwnedFd, Identity)>, Failure> {
        if !self.is_compared(index) {
            return Ok(None);
        }
        let (handle, stat) = match beneath::locate(self.volume.root(), path) {
            Ok(located) => located,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.volume.failure("opening", path, error)),
        };
        let identity = Identity::of(&stat);
        let ours =
            self.page(index).is_some_and(|page| page.is_ours(&identity)) && self.has_attributes(index, &stat);
        let wanted = self.policy == WritePolicy::SkipIdentical || ours;
        if beneath::kind(&stat) != FileType::RegularFile || identity.size != size || !wanted {
            return Ok(None);
        }
        let opened = beneath::read_located(&handle);
        opened.map(|file| Some((file, identity))).map_err(|error| self.volume.failure("opening", path, error))
    }

    /// Whether what stands at an entry's place may turn out to be what is to stand there.
    fn is_compared(&self, index: u32) -> bool {
        let stood = self.stood.get(index as usize).is_some_and(|stood| *stood);
        stood && (self.policy == WritePolicy::SkipIdentical || self.page(index).is_some())
    }

    /// Whether a file has the mode and time that the manifest says of an entry.
    fn has_attributes(&self, index: u32, stat: &Stat) -> bool {
        let entry = self.entries.get(index as usize).map(|entry| &entry.kind);
        matches!(entry, Some(EntryKind::File { mode, mtime, .. })
            if stat.st_mode & 0o7777 == mode & MODE_MASK && identity::modified(stat) == *mtime)
    }
}
