//! A stored file gets its name. What the worker says is checked against the partial file itself. Does I/O.

use nixl_transfer_crds::{Reason, WritePolicy};
use rustix::fs::{FileType, RenameFlags, Stat, renameat_with};
use rustix::io::Errno;

use super::{Committed, Destination, FileState};
use crate::manifest::MODE_MASK;
use crate::protocol::entry::{Entry, EntryKind};
use crate::protocol::{Failure, StoredFile};
use crate::volume::beneath;
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
            Some(FileState::Committed { .. }) => return Err(disagrees(&path, "was committed before")),
            None => return Err(disagrees(&path, "was never begun")),
        };
        if file.identical && !compared {
            return Err(disagrees(&path, "is called identical to a file that was not compared"));
        }
        let name = file.index.to_string();
        let stat = beneath::open_bytes(
            rustix::fd::AsFd::as_fd(&self.partials.directory),
            name.as_bytes(),
            rustix::fs::OFlags::PATH,
            rustix::fs::Mode::empty(),
        )
        .and_then(rustix::fs::fstat)
        .map_err(|error| beneath::failure("reading the partial file of", &path, error))?;
        if stat.st_ino != inode || stat.st_nlink != 1 {
            return Err(disagrees(&path, "has another partial file than the one that was made for it"));
        }
        let outcome = if file.identical {
            self.partials.unlink(&name);
            Committed::Skipped
        } else {
            self.check_partial(file.index, &path, &stat)?;
            if !may_commit() {
                let message = "the agent's Lease is too old: another attempt may have begun, nothing is committed";
                return Err(Failure::new(Reason::AgentNotReady, message));
            }
            self.rename(&name, &path)?;
            Committed::Replaced
        };
        self.files.insert(file.index, FileState::Committed { digest: file.digest.clone() });
        Ok(outcome)
    }

    /// A worker has only the descriptor; size and mode are what it could have got wrong with it.
    fn check_partial(&self, index: u32, path: &VolumePath, stat: &Stat) -> Result<(), Failure> {
        let Some(Entry { kind: EntryKind::File { size, mode, .. }, .. }) = self.entries.get(index as usize) else {
            return Err(disagrees(path, "is no file"));
        };
        if u64::try_from(stat.st_size) != Ok(*size) {
            return Err(disagrees(path, &format!("has {} bytes in its partial file, not {size}", stat.st_size)));
        }
        if beneath::kind(stat) != FileType::RegularFile || stat.st_mode & 0o7777 != mode & MODE_MASK {
            return Err(disagrees(path, "has another mode in its partial file than in the manifest"));
        }
        Ok(())
    }

    fn rename(&mut self, name: &str, path: &VolumePath) -> Result<(), Failure> {
        let fail = |error: Errno| match error {
            Errno::EXIST | Errno::ISDIR | Errno::NOTEMPTY => {
                Failure::new(Reason::DestinationExists, format!("{} exists by now", path.display()))
            }
            other => beneath::failure("naming", path, other),
        };
        let Some((parent, last)) = path.split() else { return Err(fail(Errno::ISDIR)) };
        let above = beneath::directory(self.volume.root(), &parent).map_err(fail)?;
        let flags = match self.policy {
            WritePolicy::FailIfExists => RenameFlags::NOREPLACE,
            WritePolicy::SkipIdentical | WritePolicy::Overwrite => RenameFlags::empty(),
        };
        renameat_with(&self.partials.directory, name, &above, last, flags).map_err(fail)?;
        self.touched.insert(parent.as_bytes().to_vec());
        Ok(())
    }
}

fn disagrees(path: &VolumePath, what: &str) -> Failure {
    Failure::new(Reason::IntegrityError, format!("{} {what}", path.display()))
}
