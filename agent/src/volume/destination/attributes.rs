//! Modes and times, set through a descriptor. Used by control for directories and by workers for files. Does I/O.

use std::os::fd::AsFd;

use rustix::fs::{Mode, Timespec, Timestamps, UTIME_OMIT, fchmod, futimens};
use rustix::io::Errno;

use crate::manifest::MODE_MASK;
use crate::protocol::entry::Time;

/// Gives a file or directory its permission bits, and its time of modification to the nanosecond.
pub fn set(file: impl AsFd, mode: u32, mtime: Time) -> Result<(), Errno> {
    fchmod(&file, Mode::from_raw_mode(mode & MODE_MASK))?;
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let last_modification = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    futimens(&file, &Timestamps { last_access, last_modification })
}
