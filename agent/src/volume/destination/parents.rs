//! Directories of the destination that are open: files come directory by directory, so the way down need not be gone for
//! each. Does I/O.

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Stat, fstat};
use rustix::io::Errno;

use crate::volume::beneath;
use crate::volume::path::VolumePath;

/// Open at once.
const MOST: usize = 64;

/// What tells a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DirectoryId {
    device: u64,
    inode: u64,
}

impl DirectoryId {
    pub(super) fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// An open directory of the destination. Someone may move it away meanwhile: whoever puts something into it keeps
/// its id, and compares in the end with what has the name then.
#[derive(Clone, Debug)]
pub(super) struct Parent {
    pub(super) directory: Arc<OwnedFd>,
    pub(super) id: DirectoryId,
}

/// The ones used last, newest in front.
#[derive(Debug, Default)]
pub(super) struct Parents(VecDeque<(VolumePath, Parent)>);

impl Parents {
    pub(super) fn open(&mut self, root: BorrowedFd<'_>, path: &VolumePath) -> Result<Parent, Errno> {
        if let Some(at) = self.0.iter().position(|(known, _)| known == path) {
            let found = self.0.remove(at).ok_or(Errno::NOENT)?;
            let parent = found.1.clone();
            self.0.push_front(found);
            return Ok(parent);
        }
        let directory = beneath::directory(root, path)?;
        let parent = Parent { id: DirectoryId::of(&fstat(&directory)?), directory: Arc::new(directory) };
        self.0.truncate(MOST - 1);
        self.0.push_front((path.clone(), parent.clone()));
        Ok(parent)
    }
}
