//! The driver's own pieces of memory: what is allocated, and the addresses that it is mapped at. Each is given back by its
//! drop, in the order that the driver wants.
#![allow(unsafe_code)] // calls of the driver, and a descriptor that it makes

use std::{
    ffi::{c_int, c_void},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    sync::Arc,
};

use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::{
    calls::call,
    context::Context,
    error::GpuError,
    mapped::{Access, Mapped},
};

const DESCRIPTOR: sys::CUmemAllocationHandleType =
    sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
/// What to allocate: memory of the GPU that can be exported, and that an RDMA NIC can reach where the GPU allows that.
pub(super) fn properties(context: &Context) -> Result<sys::CUmemAllocationProp, GpuError> {
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

pub(super) fn granularity(context: &Context, wanted: &sys::CUmemAllocationProp) -> Result<usize, GpuError> {
    let mut granularity = 0;
    let least = sys::CUmemAllocationGranularity_flags_enum::CU_MEM_ALLOC_GRANULARITY_MINIMUM;
    let _current = context.enter()?;
    // SAFETY: writes one number and reads a whole `wanted`.
    unsafe { call!(context.driver(), cuMemGetAllocationGranularity(&raw mut granularity, wanted, least)) }?;
    Ok(granularity)
}

/// Memory that is not mapped. Mappings keep it after this is dropped.
pub(super) struct Physical {
    context: Arc<Context>,
    handle: sys::CUmemGenericAllocationHandle,
}

impl Physical {
    pub(super) fn create(
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

    pub(super) fn import(context: &Arc<Context>, descriptor: BorrowedFd<'_>) -> Result<Self, GpuError> {
        let _current = context.enter()?;
        let mut handle = 0;
        let number = std::ptr::without_provenance_mut::<c_void>(descriptor.as_raw_fd() as usize);
        // SAFETY: writes one handle; for this type the pointer is the descriptor's number, which stays the caller's.
        unsafe {
            call!(context.driver(), cuMemImportFromShareableHandle(&raw mut handle, number, DESCRIPTOR))
        }?;
        Ok(Self { context: Arc::clone(context), handle })
    }

    pub(super) fn export(&self) -> Result<OwnedFd, GpuError> {
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
pub(super) fn map(physical: &Physical, size: usize, bytes: u64, access: Access) -> Result<Mapped, GpuError> {
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
