//! One stored file gets its name. What the worker says is checked against the partial file itself. Changes nothing that
//! another file's naming goes by but the journal. Does I/O.

use nixl_transfer_crds::{Reason, WritePolicy};
use rustix::fs::{AtFlags, FileType, RenameFlags, Stat, linkat, renameat_with, statat};
use rustix::io::Errno;

use super::begin::Compared;
use super::earlier::source_file;
use super::parents::DirectoryId;
use super::{Destination, MayCommit};
use crate::manifest::MODE_MASK;
use crate::protocol::entry::{Entry, EntryKind};
use crate::protocol::{Failure, StoredFile};
use crate::volume::beneath;
use crate::volume::identity::Identity;
use crate::volume::journal::Record;
use crate::volume::path::VolumePath;

/// A file that the worker calls stored, with what the hop knows of it.
pub(super) struct Stored<'a> {
    pub(super) file: &'a StoredFile,
    /// Where it is to stand.
    pub(super) path: VolumePath,
    /// Name of its partial file.
    pub(super) name: String,
    pub(super) inode: u64,
    pub(super) durable: bool,
    pub(super) compared: Option<Compared>,
}

/// What became of a file on the file system.
pub(super) enum Outcome {
    Named(Named),
    /// The identical one was left alone.
    Skipped,
}

/// Something has a new name.
pub(super) struct Named {
    /// The directory that it is in, to be synced.
    pub(super) parent: VolumePath,
    pub(super) id: DirectoryId,
    /// What stands under the name right after, if it is what was put there.
    file: Option<Identity>,
}

impl Destination {
    pub(super) fn commit_file(&self, stored: &Stored, may_commit: &MayCommit) -> Result<Outcome, Failure> {
        let Stored { file, path, name, .. } = stored;
        if file.identical {
            self.skip(stored)?;
            return Ok(Outcome::Skipped);
        }
        let stat = statat(&self.partials.directory, name.as_str(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.volume.failure("reading the partial file of", path, error))?;
        if stat.st_ino != stored.inode || stat.st_nlink != 1 {
            return Err(self.disagrees(path, "has another partial file than the one that was made for it"));
        }
        self.check_partial(file.index, path, &stat)?;
        let named = self.name(name, file.index, path, &Identity::of(&stat), may_commit)?;
        if let (Some(file_there), Some(entry)) = (named.file, self.entries.get(file.index as usize))
            && let Some(source) = source_file(entry)
        {
            let (path, digest) = (entry.path.0.clone(), file.digest.clone());
            self.journal().append(&Record::Committed { path, source, file: file_there, digest });
        }
        Ok(Outcome::Named(named))
    }

    /// Leaves the file alone that stands there, if it is still the one that was compared.
    fn skip(&self, stored: &Stored) -> Result<(), Failure> {
        let Stored { file, path, name, .. } = stored;
        let Some(compared) = stored.compared else {
            return Err(self.disagrees(path, "is called identical to a file that was not compared"));
        };
        if self.stands(path)? != Some(compared.file) {
            // The partial file may be empty: the source need not have sent what both have.
            let message = format!(
                "{} was changed while it was compared: let its writer finish first",
                self.volume.place(path)
            );
            return Err(Failure::new(Reason::IoError, message));
        }
        if stored.durable {
            self.forget(file.index);
        }
        self.partials.unlink(name);
        // What has just been named is not remembered: it has changed now, so it is too young.
        if let Some(memory) = &self.memory {
            memory.remember(&compared.file, self.algorithm, &file.digest, compared.since);
        }
        Ok(())
    }

    /// A worker has only the descriptor; size and mode are what it could have got wrong with it.
    fn check_partial(&self, index: u32, path: &VolumePath, stat: &Stat) -> Result<(), Failure> {
        let Some(Entry { kind: EntryKind::File { size, mode, .. }, .. }) = self.entries.get(index as usize)
        else {
            return Err(self.disagrees(path, "is no file"));
        };
        if u64::try_from(stat.st_size) != Ok(*size) {
            return Err(
                self.disagrees(path, &format!("has {} bytes in its partial file, not {size}", stat.st_size))
            );
        }
        if beneath::kind(stat) != FileType::RegularFile || stat.st_mode & 0o7777 != mode & MODE_MASK {
            return Err(self.disagrees(path, "has another mode in its partial file than in the manifest"));
        }
        Ok(())
    }

    /// The regular file that has the name now.
    fn stands(&self, path: &VolumePath) -> Result<Option<Identity>, Failure> {
        let stat = beneath::look(self.volume.root(), path)
            .map_err(|error| self.volume.failure("reading", path, error))?;
        Ok(stat.filter(|stat| beneath::kind(stat) == FileType::RegularFile).map(|stat| Identity::of(&stat)))
    }

    /// Gives what is complete among the partial files its name. The fence is asked last of all.
    pub(super) fn name(
        &self,
        name: &str,
        index: u32,
        path: &VolumePath,
        file: &Identity,
        may_commit: &MayCommit,
    ) -> Result<Named, Failure> {
        let fail = |error: Errno| match error {
            Errno::EXIST | Errno::ISDIR | Errno::NOTEMPTY => {
                let message = format!(
                    "{} has come to exist: remove it, or choose another path",
                    self.volume.place(path)
                );
                Failure::new(Reason::DestinationExists, message)
            }
            other => self.volume.failure("naming", path, other),
        };
        let Some((parent, last)) = path.split() else { return Err(fail(Errno::ISDIR)) };
        let above = self.parents.open(self.volume.root(), &parent).map_err(fail)?;
        let look = || statat(&above.directory, last, AtFlags::SYMLINK_NOFOLLOW);
        let flags = match self.policy {
            WritePolicy::SkipIdentical | WritePolicy::Overwrite => RenameFlags::empty(),
            WritePolicy::FailIfExists => {
                // Not named before it is written down: a retry would take it for a stranger's and give up.
                if let Some(entry) = self.entries.get(index as usize) {
                    let record = Record::Naming { path: entry.path.0.clone(), file: file.unnamed() };
                    self.journal().write(&record).map_err(|error| {
                        beneath::io_failure(
                            "writing the journal before naming",
                            &self.volume.place(path),
                            &error,
                        )
                    })?;
                }
                // Our own, of an earlier attempt, may be replaced. No call refuses all but one file: whoever puts
                // another there between this look and the renaming loses it.
                let ours =
                    |stat: &Stat| self.page(index).is_some_and(|page| page.is_ours(&Identity::of(stat)));
                match look() {
                    Ok(stat) if ours(&stat) => RenameFlags::empty(),
                    _ => RenameFlags::NOREPLACE,
                }
            }
        };
        if !may_commit() {
            let message = "the agent could not renew its Lease, so another attempt may have begun: nothing more is committed";
            return Err(Failure::new(Reason::AgentNotReady, message));
        }
        match renameat_with(&self.partials.directory, name, &above.directory, last, flags) {
            // A file system that cannot refuse to replace: the link call can, and the other name goes with its directory.
            Err(Errno::INVAL) if flags == RenameFlags::NOREPLACE => {
                linkat(&self.partials.directory, name, &above.directory, last, AtFlags::empty())
                    .map_err(fail)?;
                self.partials.unlink(name);
            }
            other => other.map_err(fail)?,
        }
        let standing = look().ok().map(|stat| Identity::of(&stat));
        let file = standing.filter(|standing| standing.unnamed() == file.unnamed());
        Ok(Named { parent, id: above.id, file })
    }
}
