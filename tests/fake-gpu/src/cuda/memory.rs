//! Memory as a memfd that has the GPU's address in its name, and the calls that make it, hand it on and take it.

use std::{
    ffi::{c_int, c_uint, c_ulonglong, c_void},
    fs::{self, File},
    os::{
        fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::Arc,
};

use cudarc::driver::sys;
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create},
    io::{dup, fcntl_dupfd_cloexec},
};

use super::{INVALID_VALUE, OUT_OF_MEMORY, State, answer, code};
use crate::gpus::Gpu;

/// What sizes of memory that is mapped by hand are multiples of.
pub const GRANULARITY: usize = 2 << 20;
/// What another has left there.
pub const LEFT: u8 = 0xaa;
/// How the link of a descriptor to such a memfd begins.
const LINK: &str = "/memfd:fake-gpu-";
const DESCRIPTOR: c_uint = sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR.0;

/// A piece of a GPU's memory.
pub struct Memory {
    pub descriptor: OwnedFd,
    pub device: c_int,
    pub size: usize,
    pub inode: u64,
}

impl Memory {
    /// New memory, full of [`LEFT`]. Nobody can change its size, as is the case with a GPU's.
    pub fn create(device: c_int, gpu: &Gpu, size: usize) -> Result<Arc<Self>, c_uint> {
        if size == 0 {
            return Err(INVALID_VALUE);
        }
        if size > gpu.bytes {
            return Err(OUT_OF_MEMORY);
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create(format!("fake-gpu-{}", gpu.address), flags).map_err(code)?);
        ftruncate(&file, size as u64).map_err(code)?;
        let left = vec![LEFT; size.min(1 << 20)];
        for at in (0..size).step_by(left.len()) {
            let piece = &left[..left.len().min(size - at)];
            file.write_all_at(piece, at as u64).map_err(|_| OUT_OF_MEMORY)?;
        }
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).map_err(code)?;
        let inode = fstat(&file).map_err(code)?.st_ino;
        Ok(Arc::new(Self { descriptor: file.into(), device, size, inode }))
    }

    /// The memory of a descriptor; `None` if it is of none of the GPUs.
    pub fn of(state: &State, descriptor: OwnedFd) -> Option<Arc<Self>> {
        let address = address(&format!("/proc/self/fd/{}", descriptor.as_raw_fd()))?;
        let device = state.device_at(&address)?;
        let stat = fstat(&descriptor).ok()?;
        let size = usize::try_from(stat.st_size).ok()?;
        Some(Arc::new(Self { descriptor, device, size, inode: stat.st_ino }))
    }
}

/// The GPU's address in the link of a descriptor, if it is memory of a GPU.
pub fn address(link: &str) -> Option<String> {
    let name = fs::read_link(link).ok()?;
    let name = name.to_str()?.strip_prefix(LINK)?;
    Some(name.strip_suffix(" (deleted)").unwrap_or(name).to_owned())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetAllocationGranularity(
    granularity: *mut usize,
    wanted: *const sys::CUmemAllocationProp,
    _which: c_uint,
) -> c_uint {
    answer(|state| {
        // SAFETY: the caller's structure and number.
        unsafe {
            state.gpu((*wanted).location.id)?;
            *granularity = GRANULARITY;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemCreate(
    handle: *mut sys::CUmemGenericAllocationHandle,
    size: usize,
    wanted: *const sys::CUmemAllocationProp,
    flags: c_ulonglong,
) -> c_uint {
    answer(|state| {
        state.current()?;
        // SAFETY: the caller's structure.
        let device = unsafe { (*wanted).location.id };
        let gpu = state.gpu(device)?;
        if flags != 0 || !size.is_multiple_of(GRANULARITY) {
            return Err(INVALID_VALUE);
        }
        let memory = Memory::create(device, gpu, size)?;
        // SAFETY: the caller's number.
        unsafe { *handle = keep(state, memory) };
        Ok(())
    })
}

/// Mappings keep it after this.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemRelease(handle: sys::CUmemGenericAllocationHandle) -> c_uint {
    answer(|state| {
        state.current()?;
        state.handles.remove(&handle).map(drop).ok_or(INVALID_VALUE)
    })
}

/// The descriptor is one that a started program keeps, as the driver's are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemExportToShareableHandle(
    to: *mut c_void,
    handle: sys::CUmemGenericAllocationHandle,
    of: c_uint,
    flags: c_ulonglong,
) -> c_uint {
    answer(|state| {
        state.current()?;
        let memory = state.handles.get(&handle).ok_or(INVALID_VALUE)?;
        if of != DESCRIPTOR || flags != 0 {
            return Err(INVALID_VALUE);
        }
        let descriptor = dup(&memory.descriptor).map_err(code)?;
        // SAFETY: the caller's `int`.
        unsafe { *to.cast::<c_int>() = descriptor.into_raw_fd() };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemImportFromShareableHandle(
    handle: *mut sys::CUmemGenericAllocationHandle,
    number: *mut c_void,
    of: c_uint,
) -> c_uint {
    answer(|state| {
        state.current()?;
        let number = c_int::try_from(number.addr()).map_err(|_| INVALID_VALUE)?;
        if of != DESCRIPTOR {
            return Err(INVALID_VALUE);
        }
        // SAFETY: one that is not open is an error below; it is not -1.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let own = fcntl_dupfd_cloexec(descriptor, 0).map_err(|_| INVALID_VALUE)?;
        let memory = Memory::of(state, own).ok_or(INVALID_VALUE)?;
        // SAFETY: the caller's number.
        unsafe { *handle = keep(state, memory) };
        Ok(())
    })
}

fn keep(state: &mut State, memory: Arc<Memory>) -> u64 {
    let handle = state.id();
    state.handles.insert(handle, memory);
    handle
}
