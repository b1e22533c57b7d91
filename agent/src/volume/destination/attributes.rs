//! Modes and times, set through a descriptor. Used by control for directories and by workers for files. Does I/O.

use std::os::fd::AsFd;

use rustix::fs::{Mode, Timespec, Timestamps, UTIME_OMIT, fchmod, fstat, futimens};
use rustix::io::Errno;

use crate::manifest::MODE_MASK;
use crate::protocol::entry::Time;

/// Gives a file its permission bits and nothing else of the kind, and its time of modification to the nanosecond.
pub fn set(file: impl AsFd, mode: u32, mtime: Time) -> Result<(), Errno> {
    apply(file, mode & MODE_MASK, mtime)
}

/// As [`set`], for a directory: what it has beyond permission bits, a group that new files inherit for one, is its
/// place's affair and stays.
pub fn set_directory(directory: impl AsFd, mode: u32, mtime: Time) -> Result<(), Errno> {
    let beyond = fstat(&directory)?.st_mode & 0o7777 & !MODE_MASK;
    apply(directory, beyond | (mode & MODE_MASK), mtime)
}

fn apply(file: impl AsFd, mode: u32, mtime: Time) -> Result<(), Errno> {
    fchmod(&file, Mode::from_raw_mode(mode))?;
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let last_modification = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    futimens(&file, &Timestamps { last_access, last_modification })
}
