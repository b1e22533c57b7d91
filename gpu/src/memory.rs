//! GPU memory as a descriptor: allocated and exported here, imported and mapped wherever the descriptor has gone. The
//! descriptor alone keeps the memory, also in a process without CUDA; nobody can revoke it (fact 23).
#![allow(unsafe_code)] // zeros that go on after the call has returned

mod physical;
#[cfg(test)]
mod tests;

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use cudarc::driver::sys::CUdevice_attribute_enum as Attribute;

use crate::{
    context::Context,
    error::GpuError,
    mapped::{Access, Mapped, check_device},
    range,
    stream::{Event, Stream},
};
use physical::{Physical, granularity, map, properties};

/// Memory of a GPU by its descriptor. Mapped nowhere by itself, so it needs no context.
#[derive(Debug)]
pub struct Allocation {
    descriptor: OwnedFd,
    bytes: u64,
    taken: u64,
}

impl Allocation {
    /// Allocates memory of the context's GPU, at least 1 byte, and fills it with zeros, so that nobody reads what was there
    /// before. `patience` is for the zeros: some 0.1 s for a whole GPU.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` and whatever else the driver says; [`GpuError::Length`]; [`GpuError::NotSupported`];
    /// [`GpuError::TimedOut`], after which nothing is freed before the process ends.
    pub fn create(context: &Arc<Context>, bytes: u64, patience: Duration) -> Result<Self, GpuError> {
        if !context
            .device()
            .has(Attribute::CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED)?
        {
            return Err(GpuError::NotSupported("give memory as a descriptor"));
        }
        let wanted = properties(context)?;
        let size = range::round_up(bytes, granularity(context, &wanted)?)?;
        let physical = Physical::create(context, &wanted, size)?;
        let mapped = map(&physical, size, bytes, Access::ReadWrite)?;
        zero(&mapped, size, patience)?;
        drop(mapped);
        let descriptor = physical.export()?;
        Ok(Self { descriptor, bytes, taken: size as u64 })
    }

    /// The descriptor. Whoever has it or a copy of it can read and write the memory, and keeps it.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// The descriptor alone.
    pub fn into_descriptor(self) -> OwnedFd {
        self.descriptor
    }

    /// Its length in bytes, as it was asked for. An importer must be told: a descriptor does not say.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it takes of the GPU, in bytes: rounded up, to 2 MiB on today's.
    pub fn taken(&self) -> u64 {
        self.taken
    }
}

impl Mapped {
    /// Maps memory of a descriptor that [`Allocation::create`] has made, here or in another process; 0.3 ms (fact 23). The
    /// descriptor is not needed afterwards. `bytes` is what [`Allocation::bytes`] says. A lie harms nobody else: less
    /// maps the beginning, and more is refused.
    ///
    /// # Errors
    /// [`GpuError::Device`] for memory of another GPU; the driver refuses more bytes than there are, and whatever is no memory
    /// of its own.
    pub fn import(
        descriptor: BorrowedFd<'_>,
        context: &Arc<Context>,
        bytes: u64,
        access: Access,
    ) -> Result<Self, GpuError> {
        let size = range::round_up(bytes, granularity(context, &properties(context)?)?)?;
        let physical = Physical::import(context, descriptor)?;
        let mapped = map(&physical, size, bytes, access)?;
        check_device(context, mapped.device_ptr())?;
        Ok(mapped)
    }
}

/// Fills all that is mapped with zeros, what rounding has added too. It stays mapped if nobody knows when that ends.
fn zero(mapped: &Mapped, size: usize, patience: Duration) -> Result<(), GpuError> {
    let (stream, event) = (Stream::new(mapped.context())?, Event::new(mapped.context())?);
    // SAFETY: stays mapped until the event is over, or, if that does not happen, until the process ends.
    unsafe { stream.zero(mapped.device_ptr(), size) }?;
    let ended = event.record(&stream).and_then(|()| event.wait("filling GPU memory with zeros", patience));
    ended.inspect_err(|_| mapped.abandon())
}
