//! A partial file as the threads of a target share it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

/// The descriptor, and whether a sync of it has failed. The kernel tells each failure once, to whoever syncs next: were two
/// threads to sync one file, one would hear of it and the other take the file for safe.
#[derive(Debug)]
pub(super) struct PartialFile {
    file: OwnedFd,
    failed: Mutex<bool>,
    /// Whether it is memory: it keeps its length, and no disk is behind it.
    pub(super) memory: bool,
}

impl PartialFile {
    pub(super) fn new(file: OwnedFd, memory: bool) -> Self {
        Self { file, failed: Mutex::new(false), memory }
    }

    /// Syncs it as `how` does, one thread at a time; never again after a failure.
    pub(super) fn sync(&self, how: impl FnOnce(&OwnedFd) -> Result<(), Errno>) -> Result<(), Errno> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if *failed {
            return Err(Errno::IO);
        }
        how(&self.file).inspect_err(|_| *failed = true)
    }
}

impl AsFd for PartialFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_sync_is_failed_for_good() {
        let file = PartialFile::new(std::fs::File::open("/dev/null").unwrap().into(), false);
        assert_eq!(file.sync(|_| Ok(())), Ok(()));
        assert_eq!(file.sync(|_| Err(Errno::NOSPC)), Err(Errno::NOSPC));
        assert_eq!(file.sync(|_| Ok(())), Err(Errno::IO), "as the kernel would answer");
    }
}
