//! GPU memory as a descriptor: allocated and exported here, imported and mapped wherever the descriptor has gone. The
//! descriptor alone keeps the memory, also in a process without CUDA; nobody can revoke it (fact 23).
#![allow(unsafe_code)] // calls of the driver, and a descriptor that it makes

use std::{
    ffi::{c_int, c_void},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute};
use rustix::{
    fs::{FileType, fstat, major},
    io::{FdFlags, fcntl_setfd},
};

use crate::{
    calls::call,
    context::Context,
    error::GpuError,
    mapped::{Access, Mapped, check_device},
    range,
    stream::{Event, Stream},
};

const DESCRIPTOR: sys::CUmemAllocationHandleType =
    sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
/// The kernel's number for NVIDIA's character devices; a descriptor of memory is one of /dev/nvidiactl.
const NVIDIA_MAJOR: u32 = 195;

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
        if let Err(error) = zero(&mapped, size, patience) {
            // It may still be going on.
            mapped.abandon();
            return Err(error);
        }
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
    /// [`GpuError::NotGpuMemory`] for another descriptor, [`GpuError::Device`] for memory of another GPU; the driver refuses
    /// more bytes than there are.
    pub fn import(
        descriptor: BorrowedFd<'_>,
        context: &Arc<Context>,
        bytes: u64,
        access: Access,
    ) -> Result<Self, GpuError> {
        check_descriptor(descriptor)?;
        let size = range::round_up(bytes, granularity(context, &properties(context)?)?)?;
        let physical = Physical::import(context, descriptor)?;
        let mapped = map(&physical, size, bytes, access)?;
        check_device(context, mapped.device_ptr())?;
        Ok(mapped)
    }
}

/// Checks what can be seen without CUDA: whether a descriptor can be GPU memory at all. Control, which never loads the
/// driver, can refuse by it what a workload hands over.
///
/// # Errors
/// [`GpuError::NotGpuMemory`].
pub fn check_descriptor(descriptor: BorrowedFd<'_>) -> Result<(), GpuError> {
    let stat = fstat(descriptor).map_err(|_| GpuError::NotGpuMemory("it cannot be looked at"))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice if major(stat.st_rdev) == NVIDIA_MAJOR => Ok(()),
        _ => Err(GpuError::NotGpuMemory("it is no descriptor of NVIDIA's driver")),
    }
}

/// What to allocate: memory of the GPU that can be exported, and that an RDMA NIC can reach where the GPU allows that.
fn properties(context: &Context) -> Result<sys::CUmemAllocationProp, GpuError> {
    let device = context.device();
    let rdma = device.has(Attribute::CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED)?;
    Ok(sys::CUmemAllocationProp {
        type_: sys::CUmemAllocationType_enum::CU_MEM_ALLOCATION_TYPE_PINNED,
        requestedHandleTypes: DESCRIPTOR,
        location: location(context),
        win32HandleMetaData: std::ptr::null_mut(),
        allocFlags: sys::CUmemAllocationProp_st__bindgen_ty_1 {
            compressionType: 0,
            gpuDirectRDMACapable: u8::from(rdma),
            usage: 0,
            reserved: [0; 4],
        },
    })
}

fn location(context: &Context) -> sys::CUmemLocation {
    sys::CUmemLocation {
        type_: sys::CUmemLocationType_enum::CU_MEM_LOCATION_TYPE_DEVICE,
        id: context.device().raw(),
    }
}

fn granularity(context: &Context, wanted: &sys::CUmemAllocationProp) -> Result<usize, GpuError> {
    let mut granularity = 0;
    let least = sys::CUmemAllocationGranularity_flags_enum::CU_MEM_ALLOC_GRANULARITY_MINIMUM;
    let _current = context.enter()?;
    // SAFETY: writes one number and reads a whole `wanted`.
    unsafe { call!(context.driver(), cuMemGetAllocationGranularity(&raw mut granularity, wanted, least)) }?;
    Ok(granularity)
}

/// Memory that is not mapped. Mappings keep it after this is dropped.
struct Physical {
    context: Arc<Context>,
    handle: sys::CUmemGenericAllocationHandle,
}

impl Physical {
    fn create(
        context: &Arc<Context>,
        wanted: &sys::CUmemAllocationProp,
        size: usize,
    ) -> Result<Self, GpuError> {
        let _current = context.enter()?;
        let mut handle = 0;
        // SAFETY: writes one handle and reads a whole `wanted`; 0 is the only value for its flags.
        unsafe { call!(context.driver(), cuMemCreate(&raw mut handle, size, wanted, 0)) }?;
        Ok(Self { context: Arc::clone(context), handle })
    }

    fn import(context: &Arc<Context>, descriptor: BorrowedFd<'_>) -> Result<Self, GpuError> {
        let _current = context.enter()?;
        let mut handle = 0;
        let number = std::ptr::without_provenance_mut::<c_void>(descriptor.as_raw_fd() as usize);
        // SAFETY: writes one handle; for this type the pointer is the descriptor's number, which stays the caller's.
        unsafe {
            call!(context.driver(), cuMemImportFromShareableHandle(&raw mut handle, number, DESCRIPTOR))
        }?;
        Ok(Self { context: Arc::clone(context), handle })
    }

    fn export(&self) -> Result<OwnedFd, GpuError> {
        let _current = self.context.enter()?;
        let mut number: c_int = -1;
        let to = (&raw mut number).cast::<c_void>();
        // SAFETY: for this type one `int` is written; 0 is the only value for its flags.
        unsafe {
            call!(self.context.driver(), cuMemExportToShareableHandle(to, self.handle, DESCRIPTOR, 0))
        }?;
        if number < 0 {
            return Err(GpuError::NotSupported("give memory as a descriptor"));
        }
        // SAFETY: a descriptor that the driver has just made for us.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        // Programs that are started later must not keep the memory.
        fcntl_setfd(&descriptor, FdFlags::CLOEXEC)
            .map_err(|errno| GpuError::System("cannot set FD_CLOEXEC", io::Error::from(errno)))?;
        Ok(descriptor)
    }
}

impl Drop for Physical {
    fn drop(&mut self) {
        let _current = self.context.enter();
        // SAFETY: created or imported once, released once.
        if let Err(error) = unsafe { call!(self.context.driver(), cuMemRelease(self.handle)) } {
            tracing::warn!(%error, "GPU memory could not be released");
        }
    }
}

/// Addresses of this process, and whether memory is mapped there.
struct Reservation {
    context: Arc<Context>,
    start: u64,
    size: usize,
    mapped: bool,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let _current = self.context.enter();
        let unmapped = if self.mapped {
            // SAFETY: mapped by `map` as a whole; nothing is in flight, or the owner would have been abandoned.
            unsafe { call!(self.context.driver(), cuMemUnmap(self.start, self.size)) }
        } else {
            Ok(())
        };
        // Addresses that still have memory must not be given away.
        let freed = unmapped.and_then(|()| {
            // SAFETY: reserved by `map` as a whole, freed once, and nothing is mapped there any more.
            unsafe { call!(self.context.driver(), cuMemAddressFree(self.start, self.size)) }
        });
        if let Err(error) = freed {
            tracing::warn!(%error, bytes = self.size, "GPU memory could not be unmapped");
        }
    }
}

/// Maps `size` bytes, of which `bytes` can be used.
fn map(physical: &Physical, size: usize, bytes: u64, access: Access) -> Result<Mapped, GpuError> {
    let context = &physical.context;
    let _current = context.enter()?;
    let mut start = 0;
    // SAFETY: writes one address; alignment, wish and flags 0 leave the choice to the driver.
    unsafe { call!(context.driver(), cuMemAddressReserve(&raw mut start, size, 0, 0, 0)) }?;
    let mut reservation = Reservation { context: Arc::clone(context), start, size, mapped: false };
    // SAFETY: the range was just reserved and nothing is mapped there; the handle is held.
    unsafe { call!(context.driver(), cuMemMap(start, size, 0, physical.handle, 0)) }?;
    reservation.mapped = true;
    let flags = match access {
        Access::Read => sys::CUmemAccess_flags_enum::CU_MEM_ACCESS_FLAGS_PROT_READ,
        Access::ReadWrite => sys::CUmemAccess_flags_enum::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
    };
    let descriptor = sys::CUmemAccessDesc { location: location(context), flags };
    // SAFETY: reads one description; the range was just mapped as a whole.
    unsafe { call!(context.driver(), cuMemSetAccess(start, size, &raw const descriptor, 1)) }?;
    Ok(Mapped::new(context, start, bytes, access, Box::new(reservation)))
}

/// Fills all that is mapped with zeros, what rounding has added too.
fn zero(mapped: &Mapped, size: usize, patience: Duration) -> Result<(), GpuError> {
    let (stream, event) = (Stream::new(mapped.context())?, Event::new(mapped.context())?);
    // SAFETY: stays mapped until the event is over, or, if that does not happen, until the process ends.
    unsafe { stream.zero(mapped.device_ptr(), size) }?;
    event.record(&stream)?;
    event.wait("filling GPU memory with zeros", patience)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_anything_else_are_refused_before_the_driver_sees_them() {
        let memfd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let (pipe, _) = rustix::pipe::pipe().unwrap();
        for descriptor in [memfd.as_fd(), null.as_fd(), pipe.as_fd()] {
            assert!(matches!(check_descriptor(descriptor), Err(GpuError::NotGpuMemory(_))));
        }
    }
}
