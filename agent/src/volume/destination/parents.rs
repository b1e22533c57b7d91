//! Directories of the destination that are open: files come directory by directory, so the way down need not be gone for
//! each. Does I/O.

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
pub(super) struct Parents(Mutex<VecDeque<(VolumePath, Parent)>>);

impl Parents {
    pub(super) fn open(&self, root: BorrowedFd<'_>, path: &VolumePath) -> Result<Parent, Errno> {
        if let Some(known) = used(&mut self.lock(), path) {
            return Ok(known);
        }
        // Not under the lock: the others need not wait for this way down.
        let directory = beneath::directory(root, path)?;
        let parent = Parent { id: DirectoryId::of(&fstat(&directory)?), directory: Arc::new(directory) };
        let mut open = self.lock();
        // Another may have been faster, and all are to put their files into the same one.
        if let Some(known) = used(&mut open, path) {
            return Ok(known);
        }
        open.truncate(MOST - 1);
        open.push_front((path.clone(), parent.clone()));
        Ok(parent)
    }

    /// What a panic elsewhere leaves is at worst one directory less.
    fn lock(&self) -> MutexGuard<'_, VecDeque<(VolumePath, Parent)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The directory of that path, if it is open; it is the newest then.
fn used(open: &mut VecDeque<(VolumePath, Parent)>, path: &VolumePath) -> Option<Parent> {
    let at = open.iter().position(|(known, _)| known == path)?;
    let found = open.remove(at)?;
    let parent = found.1.clone();
    open.push_front(found);
    Some(parent)
}
