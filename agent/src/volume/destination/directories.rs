//! Directories and links of a destination: made, and finished. Does I/O.

use rustix::fs::{FileType, Mode, OFlags, fstat, fsync, mkdirat, readlinkat, symlinkat};
use rustix::io::Errno;

use nixl_transfer_crds::{Reason, WritePolicy};

use super::partials::LINK;
use super::{Destination, attributes};
use crate::manifest::MODE_MASK;
use crate::protocol::Failure;
use crate::protocol::entry::EntryKind;
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
        let above = beneath::directory(self.volume.root(), &parent).map_err(fail)?;
        // Its owner must be able to fill it; the exact mode comes when it is full.
        let made = mkdirat(&above, name, Mode::from_raw_mode((mode & MODE_MASK) | 0o700));
        match made {
            Ok(()) => {
                self.touched.insert(parent.as_bytes().to_vec());
                Ok(())
            }
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
    pub(super) fn make_links(&mut self, may_commit: &dyn Fn() -> bool) -> Result<(), Failure> {
        let mut links = Vec::new();
        for entry in &self.entries {
            if let EntryKind::Link { target } = &entry.kind {
                links.push((self.volume.join(&self.path, &entry.path.0)?, target.0.clone()));
            }
        }
        for (path, target) in links {
            self.make_link(&path, &target, may_commit)?;
        }
        Ok(())
    }

    fn make_link(
        &mut self,
        path: &VolumePath,
        target: &[u8],
        may_commit: &dyn Fn() -> bool,
    ) -> Result<(), Failure> {
        if self.says(path)?.is_some_and(|standing| standing == target)
            && self.policy != WritePolicy::FailIfExists
        {
            return Ok(());
        }
        self.partials.unlink(LINK);
        symlinkat(target, &self.partials.directory, LINK)
            .map_err(|error| self.volume.failure("making the link", path, error))?;
        self.rename(LINK, path, may_commit)
    }

    /// What the symbolic link at a place says, when one stands there.
    fn says(&self, path: &VolumePath) -> Result<Option<Vec<u8>>, Failure> {
        let fail = |error| self.volume.failure("reading", path, error);
        let Some((parent, name)) = path.split() else { return Ok(None) };
        let above = beneath::directory(self.volume.root(), &parent).map_err(fail)?;
        match readlinkat(&above, name, Vec::new()) {
            Ok(target) => Ok(Some(target.into_bytes())),
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
            if touched.remove(path.as_bytes()) || (ours && !same) {
                fsync(&directory).map_err(fail)?;
            }
        }
        for path in touched {
            let directory = beneath::open_bytes(
                self.volume.root(),
                &path,
                OFlags::RDONLY | OFlags::DIRECTORY,
                Mode::empty(),
            );
            directory.and_then(fsync).map_err(|error| {
                let place = format!("{} in volume {}", String::from_utf8_lossy(&path), self.volume.name);
                beneath::failure("syncing the directory", &place, error)
            })?;
        }
        Ok(())
    }
}
