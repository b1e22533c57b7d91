//! A stored file gets its name. What the worker says is checked against the partial file itself. Does I/O.

use std::sync::Arc;

use nixl_transfer_crds::{Reason, WritePolicy};
use rustix::fs::{AtFlags, FileType, RenameFlags, Stat, linkat, renameat_with, statat};
use rustix::io::Errno;

use super::earlier::source_file;
use super::parents::DirectoryId;
use super::{Committed, Destination, FileState};
use crate::manifest::MODE_MASK;
use crate::protocol::entry::{Entry, EntryKind};
use crate::protocol::{Failure, StoredFile};
use crate::volume::beneath;
use crate::volume::identity::Identity;
use crate::volume::journal::Record;
use crate::volume::path::VolumePath;

impl Destination {
    pub(super) fn commit_file(
        &mut self,
        file: &StoredFile,
        may_commit: &dyn Fn() -> bool,
    ) -> Result<Committed, Failure> {
        let (path, _) = self.file(file.index)?;
        let (inode, durable, compared) = match self.files.get(&file.index) {
            Some(FileState::Partial { inode, durable, compared }) => (*inode, *durable, *compared),
            Some(FileState::Committed { .. }) => return Err(self.disagrees(&path, "was committed before")),
            None => return Err(self.disagrees(&path, "was never begun")),
        };
        let name = self.partial_name(file.index)?;
        let outcome = if file.identical {
            let Some(compared) = compared else {
                return Err(self.disagrees(&path, "is called identical to a file that was not compared"));
            };
            if self.stands(&path)? != Some(compared.file) {
                // The partial file may be empty: the source need not have sent what both have.
                let message = format!(
                    "{} was changed while it was compared: let its writer finish first",
                    self.volume.place(&path)
                );
                return Err(Failure::new(Reason::IoError, message));
            }
            if durable {
                self.forget(file.index);
            }
            self.partials.unlink(&name);
            // What has just been named is not remembered: it has changed now, so it is too young.
            if let Some(memory) = &self.memory {
                memory.remember(&compared.file, self.algorithm, &file.digest, compared.since);
            }
            Committed::Skipped
        } else {
            let stat = statat(&self.partials.directory, name.as_str(), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| self.volume.failure("reading the partial file of", &path, error))?;
            if stat.st_ino != inode || stat.st_nlink != 1 {
                return Err(
                    self.disagrees(&path, "has another partial file than the one that was made for it")
                );
            }
            self.check_partial(file.index, &path, &stat)?;
            let named = self.rename(&name, file.index, &path, &Identity::of(&stat), may_commit)?;
            if let (Some(named), Some(entry)) = (named, self.entries.get(file.index as usize))
                && let Some(source) = source_file(entry)
            {
                let (path, digest) = (entry.path.0.clone(), file.digest.clone());
                self.journal.append(&Record::Committed { path, source, file: named, digest });
            }
            Committed::Replaced
        };
        self.files.insert(file.index, FileState::Committed { digest: file.digest.clone() });
        Ok(outcome)
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

    /// Gives what is complete among the partial files its name, and tells what has it then. The fence is asked last of all.
    pub(super) fn rename(
        &mut self,
        name: &str,
        index: u32,
        path: &VolumePath,
        file: &Identity,
        may_commit: &dyn Fn() -> bool,
    ) -> Result<Option<Identity>, Failure> {
        let volume = Arc::clone(&self.volume);
        let fail = |error: Errno| match error {
            Errno::EXIST | Errno::ISDIR | Errno::NOTEMPTY => {
                let message =
                    format!("{} has come to exist: remove it, or choose another path", volume.place(path));
                Failure::new(Reason::DestinationExists, message)
            }
            other => volume.failure("naming", path, other),
        };
        let Some((parent, last)) = path.split() else { return Err(fail(Errno::ISDIR)) };
        let above = self.parents.open(volume.root(), &parent).map_err(fail)?;
        let look = || statat(&above.directory, last, AtFlags::SYMLINK_NOFOLLOW);
        let flags = match self.policy {
            WritePolicy::SkipIdentical | WritePolicy::Overwrite => RenameFlags::empty(),
            WritePolicy::FailIfExists => {
                // Not named before it is written down: a retry would take it for a stranger's and give up.
                if let Some(entry) = self.entries.get(index as usize) {
                    let record = Record::Naming { path: entry.path.0.clone(), file: file.unnamed() };
                    self.journal.write(&record).map_err(|error| {
                        beneath::io_failure("writing the journal before naming", &volume.place(path), &error)
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
        self.touch(&parent, above.id)?;
        let named = look().ok().map(|stat| Identity::of(&stat));
        Ok(named.filter(|named| named.unnamed() == file.unnamed()))
    }

    /// A directory has a new name in it.
    pub(super) fn touch(&mut self, path: &VolumePath, id: DirectoryId) -> Result<(), Failure> {
        match self.touched.insert(path.as_bytes().to_vec(), id) {
            Some(before) if before != id => Err(self.moved(&self.volume.place(path))),
            _ => Ok(()),
        }
    }

    pub(super) fn moved(&self, place: &str) -> Failure {
        let message = format!("{place} was moved or replaced while files were put into it: leave it alone");
        Failure::new(Reason::IoError, message)
    }
}
