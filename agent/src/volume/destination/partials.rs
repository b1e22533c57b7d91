//! The directory of a run's partial files, shared by its attempts. Does I/O.

use std::os::fd::{AsFd, OwnedFd};

use nixl_transfer_crds::{Reason, names::RESERVED_DIRECTORY};
use rustix::fs::{AtFlags, Mode, OFlags, unlinkat};
use rustix::io::Errno;

use crate::protocol::Failure;
use crate::volume::place::RunPlace;
use crate::volume::{Volume, beneath, leftovers};

/// Name of a symbolic link that is being made, among the partial files.
pub(super) const LINK: &str = "link";

/// The directory, open.
#[derive(Debug)]
pub(super) struct Partials {
    reserved: OwnedFd,
    pub(super) directory: OwnedFd,
    /// How messages name it.
    place: String,
    key: String,
}

impl Partials {
    pub(super) fn open(volume: &Volume, place: &RunPlace) -> Result<Self, Failure> {
        let key = place.key()?;
        let place = format!("{RESERVED_DIRECTORY}/{key} in volume {}", volume.name);
        let open = || {
            let reserved = leftovers::reserved_directory(volume.root())?;
            let directory = leftovers::make_directory(reserved.as_fd(), &key)?;
            Ok((reserved, directory))
        };
        let (reserved, directory) = open().map_err(|error| beneath::failure("making", &place, error))?;
        // An agent that died while it worked on this very run may have left something.
        leftovers::collect_run(&directory)
            .map_err(|error| Failure::new(Reason::IoError, format!("emptying {place}: {error}")))?;
        Ok(Self { reserved, directory, place, key })
    }

    /// A new partial file. Its lock must be had: a holder of another descriptor would be an earlier attempt, alive.
    pub(super) fn create(&self, name: &str) -> Result<OwnedFd, Failure> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = match beneath::open_bytes(self.directory.as_fd(), name.as_bytes(), flags, mode) {
            Ok(file) => file,
            Err(Errno::EXIST) => {
                let message = format!(
                    "partial file {name} of {} is held by an earlier attempt that still lives",
                    self.place
                );
                return Err(Failure::new(Reason::DestinationBusy, message));
            }
            Err(error) => return Err(beneath::failure("making a partial file in", &self.place, error)),
        };
        match leftovers::try_lock(&file) {
            Ok(true) => Ok(file),
            Ok(false) => {
                let message = format!("partial file {name} of {} is locked by another process", self.place);
                Err(Failure::new(Reason::DestinationBusy, message))
            }
            Err(error) => Err(beneath::failure("locking a partial file in", &self.place, error)),
        }
    }

    pub(super) fn unlink(&self, name: &str) {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            // The next start of the agent tries again.
            Err(error) => tracing::warn!(run = self.key, %error, "a partial file could not be removed"),
        }
    }

    pub(super) fn remove(&self) {
        self.unlink(LINK);
        match unlinkat(&self.reserved, self.key.as_str(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => {
                tracing::warn!(run = self.key, %error, "the directory of partial files could not be removed")
            }
        }
    }
}
