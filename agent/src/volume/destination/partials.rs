//! The directory of a run's partial files, shared by its attempts. Does I/O.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nixl_transfer_crds::{Algorithm, Reason, names::RESERVED_DIRECTORY};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fchmod, fstat, ftruncate, statat, unlinkat};
use rustix::io::Errno;

use crate::protocol::Failure;
use crate::volume::journal::{Book, JOURNAL, Journal};
use crate::volume::place::RunPlace;
use crate::volume::{Volume, beneath, leftovers};

/// Name of a symbolic link that is being made, among the partial files.
pub(super) const LINK: &str = "link";

/// Nobody but us reads what is not complete.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// How often another process may remove the directory while we open it.
const TRIES: usize = 4;

/// The directory, open, and ours alone by the lock on its journal.
#[derive(Debug)]
pub(super) struct Partials {
    reserved: OwnedFd,
    pub(super) directory: OwnedFd,
    /// How messages name it.
    place: String,
    key: String,
    volume: Arc<Volume>,
}

impl Partials {
    /// Opens it, made when it is missing, and with it the journal.
    pub(super) fn open(
        volume: &Arc<Volume>,
        place: &RunPlace,
        algorithm: Algorithm,
        source_node: &str,
    ) -> Result<(Self, Journal, Book), Failure> {
        let key = place.key()?;
        let place = format!("{RESERVED_DIRECTORY}/{key} in volume {}", volume.name);
        let busy = || {
            let message = format!("{place} is in use by an earlier attempt that still lives");
            Failure::new(Reason::DestinationBusy, message)
        };
        if !volume.open_places.take(&key) {
            return Err(busy());
        }
        let opened = open(volume, &key, algorithm, source_node);
        let opened = opened.map_err(|error| beneath::io_failure("opening", &place, &error));
        match opened.and_then(|opened| opened.ok_or_else(busy)) {
            Ok((reserved, directory, journal, book)) => {
                let volume = Arc::clone(volume);
                Ok((Self { reserved, directory, place, key, volume }, journal, book))
            }
            Err(failure) => {
                volume.open_places.give_back(&key);
                Err(failure)
            }
        }
    }

    /// A new partial file, empty. Its lock must be had: a holder of another descriptor would be an earlier attempt, alive.
    pub(super) fn create(&self, name: &str) -> Result<OwnedFd, Failure> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let failed = |error| beneath::failure("making a partial file in", &self.place, error);
        let file = match beneath::open_bytes(self.directory.as_fd(), name.as_bytes(), flags, MODE) {
            // Left by an earlier attempt, and of no use to this one.
            Err(Errno::EXIST) => {
                self.locked(name)?;
                self.unlink(name);
                beneath::open_bytes(self.directory.as_fd(), name.as_bytes(), flags, MODE).map_err(failed)?
            }
            other => other.map_err(failed)?,
        };
        self.lock(&file, name)?;
        Ok(file)
    }

    /// The partial file of an earlier attempt, cut to what is durable of it; `None` when it is not there or shorter.
    pub(super) fn resume(&self, name: &str, length: u64) -> Result<Option<OwnedFd>, Failure> {
        let Some(file) = self.locked(name)? else { return Ok(None) };
        let failed = |error| beneath::failure("taking up a partial file in", &self.place, error);
        let stat = fstat(&file).map_err(failed)?;
        if !is_good(&stat, length) {
            return Ok(None);
        }
        // An attempt that ended late has given it its final mode already, which would pass for this one's doing.
        fchmod(&file, MODE).map_err(failed)?;
        ftruncate(&file, length).map_err(failed)?;
        Ok(Some(file))
    }

    /// What stands under a name, if it could be a partial file with so many bytes.
    pub(super) fn look(&self, name: &str, length: u64) -> Result<Option<Stat>, Failure> {
        match statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat).filter(|stat| is_good(stat, length))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(beneath::failure("looking at a partial file in", &self.place, error)),
        }
    }

    pub(super) fn unlink(&self, name: &str) {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            // The next collection tries again.
            Err(error) => tracing::warn!(run = self.key, %error, "a partial file could not be removed"),
        }
    }

    /// Removes what is not named, but for the journal and what somebody holds.
    pub(super) fn sweep(&self, kept: &HashMap<String, Vec<u8>>) {
        let keep = |name: &[u8]| {
            name == JOURNAL.as_bytes() || std::str::from_utf8(name).is_ok_and(|name| kept.contains_key(name))
        };
        if let Err(error) = leftovers::sweep(&self.directory, keep) {
            tracing::warn!(run = self.key, %error, "partial files could not be removed");
        }
    }

    /// Removes journal and directory. A file that somebody holds keeps the directory there, for the next collection.
    pub(super) fn remove(&self) {
        self.unlink(JOURNAL);
        match unlinkat(&self.reserved, self.key.as_str(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => {
                tracing::warn!(run = self.key, %error, "the directory of partial files could not be removed")
            }
        }
    }

    /// Opens and locks a file that is there.
    fn locked(&self, name: &str) -> Result<Option<OwnedFd>, Failure> {
        match leftovers::open_file(&self.directory, name.as_bytes()) {
            Ok(file) => {
                self.lock(&file, name)?;
                Ok(Some(file))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(beneath::failure("opening a partial file in", &self.place, error)),
        }
    }

    fn lock(&self, file: &OwnedFd, name: &str) -> Result<(), Failure> {
        match leftovers::try_lock(file) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let message = format!(
                    "partial file {name} of {} is held by an earlier attempt that still lives",
                    self.place
                );
                Err(Failure::new(Reason::DestinationBusy, message))
            }
            Err(error) => Err(beneath::failure("locking a partial file in", &self.place, error)),
        }
    }
}

impl Drop for Partials {
    fn drop(&mut self) {
        self.volume.open_places.give_back(&self.key);
    }
}

type Opened = (OwnedFd, OwnedFd, Journal, Book);

/// `None` when another process has it.
fn open(volume: &Volume, key: &str, algorithm: Algorithm, node: &str) -> io::Result<Option<Opened>> {
    let mut tries = 0;
    loop {
        let reserved = leftovers::reserved_directory(volume.root())?;
        let directory = leftovers::make_directory(reserved.as_fd(), key)?;
        match Journal::open(&directory, algorithm, node) {
            // Another process took it for left behind and has removed it in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => tries += 1,
            Err(error) => return Err(error),
            Ok(None) => return Ok(None),
            Ok(Some((journal, book))) => return Ok(Some((reserved, directory, journal, book))),
        }
    }
}

fn is_good(stat: &Stat, length: u64) -> bool {
    beneath::kind(stat) == FileType::RegularFile
        && stat.st_nlink == 1
        && u64::try_from(stat.st_size).is_ok_and(|size| size >= length)
}
