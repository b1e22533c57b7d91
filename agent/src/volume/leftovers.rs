//! The reserved directory at a volume's root: one directory per run, in it the partial files. Finds and removes what
//! dead agents have left. Does I/O.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nixl_transfer_crds::names::RESERVED_DIRECTORY;
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, flock, unlinkat};
use rustix::io::Errno;

use super::beneath;

/// The reserved directory, made when it is missing. Nobody but its owner looks in.
pub(super) fn reserved_directory(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    make_directory(root, RESERVED_DIRECTORY)
}

/// A directory in another, made when it is missing.
pub(super) fn make_directory(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    beneath::open_bytes(parent, name.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
}

/// Takes the lock that marks a partial file as in use. It belongs to the open file description, so it goes with the
/// descriptor to the worker and ends when the last holder is gone; a second opener does not get it.
pub(super) fn try_lock(file: &OwnedFd) -> Result<bool, Errno> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes every partial file that nobody holds, and the directories that are empty then.
pub(super) fn collect(root: BorrowedFd<'_>) -> io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let reserved = match beneath::open_bytes(root, RESERVED_DIRECTORY.as_bytes(), flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(0),
        other => other?,
    };
    let mut removed = 0;
    for run in names(&reserved)? {
        match beneath::open_bytes(reserved.as_fd(), run.to_bytes(), flags, Mode::empty()) {
            Ok(directory) => {
                removed += collect_run(&directory)?;
                // Not empty: something in it is in use.
                match unlinkat(&reserved, run.as_c_str(), AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(Errno::NOENT) => {}
            // Nothing of ours, so not ours to remove.
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(removed)
}

/// Empties one run's directory as far as its files are free.
pub(super) fn collect_run(directory: &OwnedFd) -> io::Result<u64> {
    let mut removed = 0;
    for name in names(directory)? {
        let stat = match rustix::fs::statat(directory, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        let kind = beneath::kind(&stat);
        if kind == FileType::RegularFile {
            let flags = OFlags::RDWR | OFlags::NONBLOCK;
            let file = match beneath::open_bytes(directory.as_fd(), name.to_bytes(), flags, Mode::empty()) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            if !try_lock(&file)? {
                continue;
            }
        } else if kind != FileType::Symlink {
            continue;
        }
        match unlinkat(directory, name.as_c_str(), AtFlags::empty()) {
            Ok(()) => removed += 1,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(removed)
}

fn names(directory: &OwnedFd) -> io::Result<Vec<std::ffi::CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}
