//! Directories and links of a destination: made, and finished. Does I/O.

use rustix::fs::{AtFlags, FileType, Mode, RenameFlags, fsync, mkdirat, readlinkat, renameat_with, statat, symlinkat};
use rustix::io::Errno;

use nixl_transfer_crds::{Reason, WritePolicy};

use super::{Destination, LINK, attributes};
use crate::manifest::MODE_MASK;
use crate::protocol::Failure;
use crate::protocol::entry::{EntryKind, Time};
use crate::volume::beneath;
use crate::volume::path::VolumePath;

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
                wanted.push((self.path.join(&entry.path.0)?, mode));
            }
        }
        for (path, mode) in wanted {
            self.make_directory(&path, mode)?;
        }
        Ok(())
    }

    fn make_directory(&mut self, path: &VolumePath, mode: u32) -> Result<(), Failure> {
        let Some((parent, name)) = path.split() else { return Ok(()) };
        let fail = |error| beneath::failure("making the directory", path, error);
        let above = beneath::directory(self.volume.root(), &parent).map_err(fail)?;
        // Its owner must be able to fill it; the exact mode comes when it is full.
        match mkdirat(&above, name, Mode::from_raw_mode((mode & MODE_MASK) | 0o700)) {
            Ok(()) => {
                self.touched.insert(parent.as_bytes().to_vec());
                Ok(())
            }
            Err(Errno::EXIST) => match beneath::look(self.volume.root(), path).map_err(fail)? {
                Some(stat) if beneath::kind(&stat) == FileType::Directory => Ok(()),
                _ => Err(Failure::new(Reason::DestinationExists, format!("{} is no directory", path.display()))),
            },
            Err(error) => Err(fail(error)),
        }
    }

    /// Makes the tree's symbolic links, each under another name first, so that its own name is never missing.
    pub(super) fn make_links(&mut self) -> Result<(), Failure> {
        let mut links = Vec::new();
        for entry in &self.entries {
            if let EntryKind::Link { target } = &entry.kind {
                links.push((self.path.join(&entry.path.0)?, target.0.clone()));
            }
        }
        for (path, target) in links {
            self.make_link(&path, &target)?;
        }
        Ok(())
    }

    fn make_link(&mut self, path: &VolumePath, target: &[u8]) -> Result<(), Failure> {
        let fail = |error| beneath::failure("making the link", path, error);
        let Some((parent, name)) = path.split() else { return Err(fail(Errno::ISDIR)) };
        let above = beneath::directory(self.volume.root(), &parent).map_err(fail)?;
        let standing = match statat(&above, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(beneath::kind(&stat)),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(fail(error)),
        };
        if standing == Some(FileType::Symlink)
            && self.policy == WritePolicy::SkipIdentical
            && readlinkat(&above, name, Vec::new()).map_err(fail)?.as_bytes() == target
        {
            return Ok(());
        }
        self.partials.unlink(LINK);
        symlinkat(target, &self.partials.directory, LINK).map_err(fail)?;
        let flags = match self.policy {
            WritePolicy::FailIfExists => RenameFlags::NOREPLACE,
            WritePolicy::SkipIdentical | WritePolicy::Overwrite => RenameFlags::empty(),
        };
        renameat_with(&self.partials.directory, LINK, &above, name, flags).map_err(|error| match error {
            Errno::EXIST | Errno::ISDIR | Errno::NOTEMPTY => {
                Failure::new(Reason::DestinationExists, format!("{} exists by now", path.display()))
            }
            other => fail(other),
        })?;
        self.touched.insert(parent.as_bytes().to_vec());
        Ok(())
    }

    /// Gives the tree's directories their modes and times, from the bottom up since each change below alters the time
    /// above, and syncs every directory that has changed, once. The volume's own root keeps its attributes: they are
    /// the administrator's.
    pub(super) fn finish_directories(&mut self) -> Result<(), Failure> {
        let mut described: Vec<(VolumePath, Option<(u32, Time)>)> = Vec::new();
        for entry in &self.entries {
            if let EntryKind::Directory { mode, mtime } = entry.kind {
                let path = self.path.join(&entry.path.0)?;
                self.touched.remove(path.as_bytes());
                let attributes = (!path.is_root()).then_some((mode, mtime));
                described.push((path, attributes));
            }
        }
        for (path, attributes) in described.into_iter().rev() {
            let fail = |error| beneath::failure("finishing the directory", &path, error);
            let directory = beneath::directory(self.volume.root(), &path).map_err(fail)?;
            if let Some((mode, mtime)) = attributes {
                attributes::set(&directory, mode, mtime).map_err(fail)?;
            }
            fsync(&directory).map_err(fail)?;
        }
        for path in std::mem::take(&mut self.touched) {
            let synced = beneath::open_bytes(
                rustix::fd::AsFd::as_fd(&self.volume.root),
                &path,
                rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY,
                Mode::empty(),
            )
            .and_then(fsync);
            synced.map_err(|error| beneath::failure("syncing a directory of", &self.path, error))?;
        }
        Ok(())
    }
}
