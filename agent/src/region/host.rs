//! Host memory as a sealed memfd: control holds it, workers get a descriptor. It keeps its length, so nobody's access to it
//! can fail by someone else's doing.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use nixl_transfer_crds::Reason;
use rustix::{
    fs::{
        FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals,
        fstat, ftruncate, memfd_create,
    },
    io::Errno,
};

use tokio::sync::oneshot;

use super::budget::Share;
use crate::protocol::Failure;

/// Pages are made in steps of so many bytes, so that it can be given up in between.
const STEP: u64 = 64 << 20;
/// What a memfd must be sealed against, so that it keeps its length.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// A piece of host memory.
#[derive(Debug)]
pub struct HostMemory {
    file: OwnedFd,
    bytes: u64,
    writable: bool,
    _share: Option<Share>,
    /// Dropped with it: whoever waits for that knows that control has let go.
    _gone: Option<oneshot::Sender<()>>,
}

impl HostMemory {
    /// Allocates memory, all of it now and zeroed: later nobody can be refused a page. `given_up` ends it early.
    ///
    /// # Errors
    /// What the kernel says, with the reason for a region's condition.
    pub fn allocate(bytes: u64, share: Share, given_up: &AtomicBool) -> Result<Self, Failure> {
        let failed = |errno: Errno| {
            let what = format!("{bytes} bytes of host memory cannot be allocated: {errno}");
            Failure::new(
                Reason::RegionNotReady,
                format!("{what}; look at the memory limit of the agent's container"),
            )
        };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("nixl-transfer-region", flags).map_err(failed)?;
        ftruncate(&file, bytes).map_err(failed)?;
        let mut at = 0;
        while at < bytes && !given_up.load(Ordering::Relaxed) {
            let step = STEP.min(bytes - at);
            match fallocate(&file, FallocateFlags::empty(), at, step) {
                Err(Errno::INTR) => {}
                done => {
                    done.map_err(failed)?;
                    at += step;
                }
            }
        }
        fcntl_add_seals(&file, SEALS | SealFlags::SEAL).map_err(failed)?;
        Ok(Self { file, bytes, writable: true, _share: Some(share), _gone: None })
    }

    /// Takes memory that somebody else has allocated and says to be so long. The receiver ends, with an error, when nobody
    /// here has it any more.
    ///
    /// # Errors
    /// What is wrong with it and what to do, for whoever handed it over.
    pub fn adopt(file: OwnedFd, bytes: u64) -> Result<(Self, oneshot::Receiver<()>), String> {
        let seals = fcntl_get_seals(&file).map_err(|_| {
            "the descriptor is no memfd that can be sealed; make one with MFD_ALLOW_SEALING".to_owned()
        })?;
        if !seals.contains(SEALS) {
            return Err(
                "the memfd may change its length; seal it with F_SEAL_SHRINK and F_SEAL_GROW first".into()
            );
        }
        let stat = fstat(&file).map_err(|errno| format!("the memfd cannot be looked at: {errno}"))?;
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        if length != bytes || bytes == 0 {
            return Err(format!(
                "the memfd has {length} bytes, and {bytes} were said; say its own length, at least 1"
            ));
        }
        // Else our writes would make its pages, and be charged for them.
        let allocated = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
        if allocated < bytes {
            return Err(format!(
                "only {allocated} of {bytes} bytes are allocated; fill the memfd, or call fallocate, before it is handed over"
            ));
        }
        let (let_go, gone) = oneshot::channel();
        let mut memory = Self { file, bytes, writable: false, _share: None, _gone: Some(let_go) };
        memory.reader().map_err(|errno| format!("the memfd cannot be opened: {errno}"))?;
        let only_read = SealFlags::WRITE | SealFlags::FUTURE_WRITE;
        memory.writable = !seals.intersects(only_read) && memory.writer().is_ok();
        Ok((memory, gone))
    }

    /// Whether transfers can write into it, as far as could be seen when it was handed over.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A descriptor that can only read.
    pub fn reader(&self) -> Result<OwnedFd, Errno> {
        self.open(OFlags::RDONLY)
    }

    /// A descriptor that can write.
    pub fn writer(&self) -> Result<OwnedFd, Errno> {
        self.open(OFlags::RDWR)
    }

    /// An open of its own, with these rights and no more.
    fn open(&self, how: OFlags) -> Result<OwnedFd, Errno> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_fd().as_raw_fd()));
        rustix::fs::open(path, how | OFlags::CLOEXEC, Mode::empty())
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::{pread, pwrite};

    use super::*;
    use crate::region::Budget;

    fn memfd(bytes: u64, allocated: bool, seals: SealFlags) -> OwnedFd {
        let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, bytes).unwrap();
        if allocated {
            fallocate(&file, FallocateFlags::empty(), 0, bytes).unwrap();
        }
        fcntl_add_seals(&file, seals).unwrap();
        file
    }

    #[test]
    fn allocated_memory_is_zeroed_keeps_its_length_and_its_readers_only_read() {
        let budget = Budget::new(10_000);
        let share = budget.take(5000).unwrap();
        let memory = HostMemory::allocate(5000, share, &AtomicBool::new(false)).unwrap();
        let (reader, writer) = (memory.reader().unwrap(), memory.writer().unwrap());
        assert_eq!(pwrite(&writer, b"new", 4997), Ok(3));
        let mut end = [1; 8];
        assert_eq!(pread(&reader, &mut end[..], 4992), Ok(8));
        assert_eq!(&end, b"\0\0\0\0\0new");
        assert_eq!(pwrite(&reader, b"no", 0), Err(Errno::BADF));
        assert_eq!(pwrite(&writer, b"beyond", 5000), Err(Errno::PERM));
        assert_eq!(ftruncate(&writer, 4999), Err(Errno::PERM));
        assert_eq!(budget.free(), 5000);
        drop(memory);
        assert_eq!(budget.free(), 10_000);
    }

    #[test]
    fn what_is_handed_over_must_be_what_it_is_said_to_be() {
        let good = || memfd(8192, true, SEALS);
        let (memory, _) = HostMemory::adopt(good(), 8192).unwrap();
        assert!(memory.bytes() == 8192 && memory.is_writable());
        for seal in [SealFlags::WRITE, SealFlags::FUTURE_WRITE] {
            let (memory, _) = HostMemory::adopt(memfd(8192, true, SEALS | seal), 8192).unwrap();
            assert!(!memory.is_writable(), "{seal:?}");
        }
        let file: OwnedFd = tempfile::tempfile().unwrap().into();
        for (file, bytes, word) in [
            (good(), 4096, "8192 bytes, and 4096 were said"),
            (good(), u64::MAX, "were said"),
            (memfd(8192, true, SealFlags::SHRINK), 8192, "F_SEAL_GROW"),
            (memfd(8192, true, SealFlags::GROW), 8192, "F_SEAL_SHRINK"),
            (memfd(8192, false, SEALS), 8192, "only 0 of 8192 bytes are allocated"),
            (memfd(0, false, SEALS), 0, "at least 1"),
            (file, 0, "no memfd"),
        ] {
            let refusal = HostMemory::adopt(file, bytes).unwrap_err();
            assert!(refusal.contains(word), "{refusal}");
        }
    }
}
