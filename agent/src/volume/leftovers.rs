//! The reserved directory at a volume's root: one directory per run, in it the partial files and the journal. Finds and
//! removes what dead runs have left. Does I/O.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nixl_transfer_crds::names::RESERVED_DIRECTORY;
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, chmodat, flock, fstat, unlinkat};
use rustix::io::Errno;

use super::beneath;
use super::identity;
use super::journal::JOURNAL;
use super::place::RunPlace;

/// How long nothing must have come or gone in a place that may be another node's, before it is taken for left behind.
const FOREIGN_FOR_SECONDS: i64 = 7 * 24 * 60 * 60;

/// What is known of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// A further attempt may go on from it.
    Kept,
    /// Nobody does any more.
    Dead,
    /// Of a node that may be another one, which shares the file system: whether it is kept there, nobody here knows.
    Foreign,
}

/// The run directories of a volume that this process works in. Nothing is collected there, and nobody begins there
/// while it is collected.
#[derive(Debug, Default)]
pub(super) struct OpenPlaces(Mutex<HashSet<String>>);

impl OpenPlaces {
    /// False when it is taken.
    pub(super) fn take(&self, key: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned())
    }

    pub(super) fn give_back(&self, key: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Does it while nobody can take the place, unless somebody has.
    fn if_free<T: Default>(&self, key: &[u8], act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if std::str::from_utf8(key).is_ok_and(|key| open.contains(key)) { Ok(T::default()) } else { act() }
    }
}

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

/// Takes the lock that marks a file as in use. It belongs to the open file description, so it goes with the descriptor to
/// the worker and ends when the last holder is gone; a second opener does not get it.
pub(super) fn try_lock(file: impl AsFd) -> Result<bool, Errno> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens a file of ours for reading and writing, also when its attempt has already given it a mode that forbids that.
pub(super) fn open_file(directory: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK;
    let open = || beneath::open_bytes(directory.as_fd(), name, flags, Mode::empty());
    match open() {
        Err(Errno::ACCESS) => {
            chmodat(directory, name, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
            open()
        }
        other => other,
    }
}

/// Removes the directories of runs that are dead, and of whatever is no run, as far as nobody holds their files. Gives the
/// number of files removed.
pub(super) fn collect(
    root: BorrowedFd<'_>,
    open: &OpenPlaces,
    judge: impl Fn(&RunPlace) -> Left,
) -> io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let reserved = match beneath::open_bytes(root, RESERVED_DIRECTORY.as_bytes(), flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(0),
        other => other?,
    };
    let mut removed = 0;
    for run in names(&reserved)? {
        let place = run.to_str().ok().and_then(RunPlace::parse);
        let judge = || place.as_ref().map_or(Left::Dead, &judge);
        if judge() != Left::Kept {
            removed += open.if_free(run.to_bytes(), || collect_run(&reserved, &run, judge))?;
        }
    }
    Ok(removed)
}

/// `judge` is asked once more when nobody can begin there any more: a run may have come up, failed and left since.
fn collect_run(reserved: &OwnedFd, run: &CString, judge: impl Fn() -> Left) -> io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let directory = match beneath::open_bytes(reserved.as_fd(), run.to_bytes(), flags, Mode::empty()) {
        // Nothing of ours, so not ours to remove.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(0),
        other => other?,
    };
    let modified = identity::modified(&fstat(&directory)?).seconds;
    // Whoever works there has the journal locked, be it another agent on a file system that both share. Ours until the
    // directory is gone, or has nothing in it but what is held.
    let _journal = match open_file(&directory, JOURNAL.as_bytes()) {
        Ok(journal) if !try_lock(&journal)? => return Ok(0),
        Ok(journal) => Some(journal),
        Err(Errno::NOENT) => None,
        Err(error) => return Err(error.into()),
    };
    let old = identity::now().seconds.saturating_sub(modified) > FOREIGN_FOR_SECONDS;
    match judge() {
        Left::Dead => {}
        Left::Foreign if old => {}
        Left::Foreign | Left::Kept => return Ok(0),
    }
    let mut removed = sweep(&directory, |name| name == JOURNAL.as_bytes())?;
    match unlinkat(&directory, JOURNAL, AtFlags::empty()) {
        Ok(()) => removed += 1,
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match unlinkat(reserved, run.as_c_str(), AtFlags::REMOVEDIR) {
        // Not empty: something in it is in use.
        Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(removed)
}

/// Removes the files and links of a run's directory that are not to be kept and that nobody holds.
pub(super) fn sweep(directory: &OwnedFd, keep: impl Fn(&[u8]) -> bool) -> io::Result<u64> {
    let mut removed = 0;
    for name in names(directory)? {
        if keep(name.to_bytes()) {
            continue;
        }
        let stat = match rustix::fs::statat(directory, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        let kind = beneath::kind(&stat);
        if kind == FileType::RegularFile {
            let file = match open_file(directory, name.to_bytes()) {
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

fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}
