//! Directories and links of a destination: made, and finished. Does I/O.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, fsync, mkdirat, readlinkat, statat, symlinkat};
use rustix::io::Errno;

use nixl_transfer_crds::{Reason, WritePolicy};

use super::parents::DirectoryId;
use super::partials::LINK;
use super::{Destination, MayCommit, attributes};
use crate::manifest::MODE_MASK;
use crate::protocol::Failure;
use crate::protocol::entry::EntryKind;
use crate::volume::identity::Identity;
use crate::volume::path::VolumePath;
use crate::volume::{beneath, identity};

/// Mode of a directory on the way to the destination that nobody has described.
const WAY_MODE: u32 = 0o755;

impl Destination {
    /// Makes the way to the destination, then the tree's directories, from the top down.
    pub(super) fn make_directories(&mut self) -> Result<(), Failure> {
        let mut way = Vec::new();
        let mut at = self.path.clone();
        while let Some((above, _)) = at.split() {
            if !above.is_root() {
                way.push(above.clone());
            }
            at = above;
        }
        let mut wanted: Vec<(VolumePath, u32)> = way.into_iter().rev().map(|path| (path, WAY_MODE)).collect();
        for entry in &self.entries {
            if let EntryKind::Directory { mode, .. } = entry.kind {
                wanted.push((self.volume.join(&self.path, &entry.path.0)?, mode));
            }
        }
        for (path, mode) in wanted {
            self.make_directory(&path, mode)?;
        }
        Ok(())
    }

    fn make_directory(&mut self, path: &VolumePath, mode: u32) -> Result<(), Failure> {
        let Some((parent, name)) = path.split() else { return Ok(()) };
        let fail = |error| self.volume.failure("making the directory", path, error);
        let above = self.parents.open(self.volume.root(), &parent).map_err(fail)?;
        // Its owner must be able to fill it; the exact mode comes when it is full.
        let made = mkdirat(&above.directory, name, Mode::from_raw_mode((mode & MODE_MASK) | 0o700));
        match made {
            Ok(()) => self.touch(parent, above.id),
            Err(Errno::EXIST) => match beneath::look(self.volume.root(), path).map_err(fail)? {
                Some(stat) if beneath::kind(&stat) == FileType::Directory => Ok(()),
                _ => {
                    let message = format!(
                        "{} has come to exist and is no directory: remove it",
                        self.volume.place(path)
                    );
                    Err(Failure::new(Reason::DestinationExists, message))
                }
            },
            Err(error) => Err(fail(error)),
        }
    }

    /// Makes the tree's symbolic links, each under another name first, so that its own name is never missing.
    pub(super) fn make_links(&mut self, may_commit: &MayCommit) -> Result<(), Failure> {
        let mut links = Vec::new();
        for (index, entry) in (0_u32..).zip(&self.entries) {
            if let EntryKind::Link { target } = &entry.kind {
                links.push((index, self.volume.join(&self.path, &entry.path.0)?, target.0.clone()));
            }
        }
        for (index, path, target) in links {
            self.make_link(index, &path, &target, may_commit)?;
        }
        Ok(())
    }

    fn make_link(
        &mut self,
        index: u32,
        path: &VolumePath,
        target: &[u8],
        may_commit: &MayCommit,
    ) -> Result<(), Failure> {
        let fail = |error| self.volume.failure("making the link", path, error);
        if let Some((says, standing)) = self.says(path)?
            && says == target
            && (self.policy != WritePolicy::FailIfExists
                || self.page(index).is_some_and(|page| page.is_ours(&standing)))
        {
            return Ok(());
        }
        self.partials.unlink(LINK);
        symlinkat(target, &self.partials.directory, LINK).map_err(fail)?;
        let made = statat(&self.partials.directory, LINK, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
        let named = self.name(LINK, index, path, &Identity::of(&made), may_commit)?;
        self.touch(named.parent, named.id)
    }

    /// What the symbolic link at a place says, when one stands there, and which one it is.
    fn says(&self, path: &VolumePath) -> Result<Option<(Vec<u8>, Identity)>, Failure> {
        let fail = |error| self.volume.failure("reading", path, error);
        let Some((parent, name)) = path.split() else { return Ok(None) };
        let above = beneath::directory(self.volume.root(), &parent).map_err(fail)?;
        match readlinkat(&above, name, Vec::new()) {
            Ok(target) => {
                let stat = statat(&above, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
                Ok(Some((target.into_bytes(), Identity::of(&stat))))
            }
            // Nothing there, or something that is no link.
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(error) => Err(fail(error)),
        }
    }

    /// Gives the tree's directories their modes and times, from the bottom up since each change below alters the time
    /// above, and syncs every directory that has changed, once. The volume's own root keeps its attributes: they are
    /// the administrator's.
    pub(super) fn finish_directories(&mut self) -> Result<(), Failure> {
        let mut touched = std::mem::take(&mut self.touched);
        for entry in self.entries.iter().rev() {
            let EntryKind::Directory { mode, mtime } = entry.kind else { continue };
            let path = self.volume.join(&self.path, &entry.path.0)?;
            let fail = |error| self.volume.failure("finishing the directory", &path, error);
            let directory = beneath::directory(self.volume.root(), &path).map_err(fail)?;
            let stat = fstat(&directory).map_err(fail)?;
            let same = stat.st_mode & MODE_MASK == mode & MODE_MASK && identity::modified(&stat) == mtime;
            let ours = !path.is_root();
            if ours && !same {
                attributes::set_directory(&directory, mode, mtime).map_err(fail)?;
            }
            let changed = touched.remove(path.as_bytes());
            if changed.is_some_and(|id| id != DirectoryId::of(&stat)) {
                return Err(self.moved(&self.volume.place(&path)));
            }
            if changed.is_some() || (ours && !same) {
                fsync(&directory).map_err(fail)?;
            }
        }
        for (path, id) in touched {
            let place = format!("{} in volume {}", String::from_utf8_lossy(&path), self.volume.name);
            let fail = |error| beneath::failure("syncing the directory", &place, error);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let directory =
                beneath::open_bytes(self.volume.root(), &path, flags, Mode::empty()).map_err(fail)?;
            if DirectoryId::of(&fstat(&directory).map_err(fail)?) != id {
                return Err(self.moved(&place));
            }
            fsync(&directory).map_err(fail)?;
        }
        Ok(())
    }
}
