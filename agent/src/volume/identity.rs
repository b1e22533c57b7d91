//! What tells whether a file is still the one that was seen before. Pure, but for the clock.

use rustix::fs::Stat;

use crate::protocol::entry::Time;

/// A regular file at one moment. The kernel sets `changed` itself, so a write that puts size and time of modification
/// back is seen too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Bytes.
    pub(super) size: u64,
    pub(super) modified: Time,
    pub(super) changed: Time,
}

impl Identity {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: size(stat),
            modified: modified(stat),
            changed: time(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// All of it that a change of its name leaves alone.
    pub(super) fn unnamed(&self) -> Unnamed {
        let Self { device, inode, size, modified, .. } = *self;
        Unnamed { device, inode, size, modified }
    }
}

/// A file at one moment, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unnamed {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Bytes.
    pub(super) size: u64,
    pub(super) modified: Time,
}

/// The present, by the clock that file systems go by.
pub(super) fn now() -> Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    Time { seconds: now.tv_sec, nanoseconds: u32::try_from(now.tv_nsec).unwrap_or(0) }
}

/// Length in bytes.
pub(super) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Last modification.
pub(super) fn modified(stat: &Stat) -> Time {
    time(stat.st_mtime, stat.st_mtime_nsec)
}

fn time(seconds: i64, nanoseconds: u64) -> Time {
    Time { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap_or(0) }
}
