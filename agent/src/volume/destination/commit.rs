//! A stored file gets its name. What the worker says is checked against the partial file itself. Does I/O.

use nixl_transfer_crds::{Reason, WritePolicy};
use rustix::fs::{AtFlags, FileType, RenameFlags, Stat, linkat, renameat_with, statat};
use rustix::io::Errno;

use super::{Committed, Destination, FileState};
use crate::manifest::MODE_MASK;
use crate::protocol::entry::{Entry, EntryKind};
use crate::protocol::{Failure, StoredFile};
use crate::volume::beneath;
use crate::volume::identity::Identity;
use crate::volume::path::VolumePath;

impl Destination {
    pub(super) fn commit_file(
        &mut self,
        file: &StoredFile,
        may_commit: &dyn Fn() -> bool,
    ) -> Result<Committed, Failure> {
        let (path, _) = self.file(file.index)?;
        let (inode, compared) = match self.files.get(&file.index) {
            Some(FileState::Partial { inode, compared }) => (*inode, *compared),
            Some(FileState::Committed { .. }) => return Err(self.disagrees(&path, "was committed before")),
            None => return Err(self.disagrees(&path, "was never begun")),
        };
        if file.identical && compared.is_none() {
            return Err(self.disagrees(&path, "is called identical to a file that was not compared"));
        }
        let name = self.partial_name(file.index)?;
        let stat = statat(&self.partials.directory, name.as_str(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.volume.failure("reading the partial file of", &path, error))?;
        if stat.st_ino != inode || stat.st_nlink != 1 {
            return Err(self.disagrees(&path, "has another partial file than the one that was made for it"));
        }
        // The partial file is complete: when what was compared stands there no more, it takes the name.
        let outcome = if file.identical && self.stands(&path)? == compared {
            self.partials.unlink(&name);
            Committed::Skipped
        } else {
            self.check_partial(file.index, &path, &stat)?;
            self.rename(&name, &path, may_commit)?;
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

    /// Gives what is complete among the partial files its name. The fence is asked last of all.
    pub(super) fn rename(
        &mut self,
        name: &str,
        path: &VolumePath,
        may_commit: &dyn Fn() -> bool,
    ) -> Result<(), Failure> {
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
        let above = beneath::directory(self.volume.root(), &parent).map_err(fail)?;
        if !may_commit() {
            let message = "the agent could not renew its Lease, so another attempt may have begun: nothing more is committed";
            return Err(Failure::new(Reason::AgentNotReady, message));
        }
        let flags = match self.policy {
            WritePolicy::FailIfExists => RenameFlags::NOREPLACE,
            WritePolicy::SkipIdentical | WritePolicy::Overwrite => RenameFlags::empty(),
        };
        match renameat_with(&self.partials.directory, name, &above, last, flags) {
            // A file system that cannot refuse to replace: the link call can, and the other name goes with its directory.
            Err(Errno::INVAL) if self.policy == WritePolicy::FailIfExists => {
                linkat(&self.partials.directory, name, &above, last, AtFlags::empty()).map_err(fail)?;
                self.partials.unlink(name);
            }
            other => other.map_err(fail)?,
        }
        self.touched.insert(parent.as_bytes().to_vec());
        Ok(())
    }

    fn disagrees(&self, path: &VolumePath, what: &str) -> Failure {
        Failure::new(Reason::IntegrityError, format!("{} {what}", self.volume.place(path)))
    }
}
