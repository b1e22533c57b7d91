//! Host memory that the GPU copies from and to by itself: 46 GB/s instead of 10 (facts 26 and 27). A sealed memfd, anonymous
//! memory and /dev/shm can be pinned, files on disks cannot (fact 30); RLIMIT_MEMLOCK does not bind it (fact 31).
//!
//! Beside NIXL, in this order (fact 11): context, pin the slots here, register them with NIXL; in the end deregister them at
//! NIXL, then unpin. NIXL pins what it registers by itself when a context is current and the memory is not pinned; ours would
//! fail after that.
#![allow(unsafe_code)] // mapping memory, and calls of the driver

use std::{ffi::c_void, io, ptr, ptr::NonNull, sync::Arc};

use cudarc::driver::sys;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::{calls::call, context::Context, error::GpuError, mapped::Access};

/// Pinned host memory; unpinned when dropped.
#[derive(Debug)]
pub struct Pinned {
    context: Arc<Context>,
    start: NonNull<u8>,
    bytes: usize,
    /// Whether the mapping is ours.
    is_own: bool,
}

// SAFETY: the memory belongs to no thread; whoever accesses it has to say why that is right.
unsafe impl Send for Pinned {}
// SAFETY: as above; `&Pinned` gives only numbers.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// Maps zeroed memory, with all its pages, and pins it: 1 ms for 8 MiB (fact 29).
    ///
    /// # Errors
    /// What the kernel or the driver says.
    pub fn allocate(context: &Arc<Context>, bytes: usize) -> Result<Self, GpuError> {
        let (rights, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::POPULATE);
        // SAFETY: an anonymous mapping at an address of the kernel's choice replaces no other mapping.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), bytes, rights, flags) };
        let failed = |error: io::Error| GpuError::System("cannot map memory for slots", error);
        let start = start.map_err(|errno| failed(errno.into()))?;
        let start =
            NonNull::new(start.cast::<u8>()).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
        // SAFETY: our own mapping, which is unmapped after it is unpinned.
        match unsafe { Self::register(context, start, bytes, Access::ReadWrite) } {
            Ok(mut pinned) => {
                pinned.is_own = true;
                Ok(pinned)
            }
            Err(error) => {
                unmap(start, bytes);
                Err(error)
            }
        }
    }

    /// Pins memory that is mapped already, such as the slots of a stream: touch its pages before, or it takes ten times as
    /// long (fact 29). [`Access::Read`] is for memory that is mapped for reading only.
    ///
    /// # Errors
    /// `CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED` (712) when it is pinned, by NIXL perhaps; whatever else the driver says.
    ///
    /// # Safety
    /// `bytes` from `start` on are mapped, and stay so until what is returned is dropped.
    pub unsafe fn register(
        context: &Arc<Context>,
        start: NonNull<u8>,
        bytes: usize,
        access: Access,
    ) -> Result<Self, GpuError> {
        let read_only = match access {
            Access::Read => sys::CU_MEMHOSTREGISTER_READ_ONLY,
            Access::ReadWrite => 0,
        };
        let flags = sys::CU_MEMHOSTREGISTER_PORTABLE | read_only;
        let _current = context.enter()?;
        // SAFETY: the range is mapped, as this function demands.
        unsafe {
            call!(context.driver(), cuMemHostRegister_v2(start.as_ptr().cast::<c_void>(), bytes, flags))
        }?;
        Ok(Self { context: Arc::clone(context), start, bytes, is_own: false })
    }

    /// Address of the first byte in this process.
    pub fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Never true: nothing of length 0 can be pinned.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _current = self.context.enter();
        let start = self.start.as_ptr().cast::<c_void>();
        // SAFETY: registered once, unregistered once; what copied from or to it has ended, or its owner would not drop it.
        match unsafe { call!(self.context.driver(), cuMemHostUnregister(start)) } {
            Ok(()) if self.is_own => unmap(self.start, self.bytes),
            Ok(()) => {}
            // It stays mapped: the GPU may still know it.
            Err(error) => tracing::warn!(%error, bytes = self.bytes, "host memory could not be unpinned"),
        }
    }
}

fn unmap(start: NonNull<u8>, bytes: usize) {
    // SAFETY: only called with a mapping of `allocate` that nobody uses any more.
    if let Err(error) = unsafe { munmap(start.as_ptr().cast(), bytes) } {
        tracing::warn!(%error, "slots could not be unmapped");
    }
}
