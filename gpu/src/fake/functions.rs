//! The functions of the driver without a GPU, with the signatures of the real one.
#![allow(unsafe_code, non_snake_case)] // the driver's own signatures and names

use std::{
    cell::RefCell,
    ffi::{c_char, c_int, c_uchar, c_uint, c_ulonglong, c_void},
    io::{Read, Seek, Write},
    mem::ManuallyDrop,
    os::fd::{FromRawFd, IntoRawFd},
    rc::Rc,
};

use cudarc::driver::sys;
use rustix::fs::{MemfdFlags, memfd_create};

use super::{GRANULARITY, INVALID_VALUE, Work, answer};
use crate::{calls::Calls, error::NOT_READY};

/// One function of the driver: counts, fails when it is its turn, else does what stands here. Null pointers are not checked.
macro_rules! fakes {
    ($($name:ident($state:ident $(, $argument:ident: $of:ty)*) $body:block)*) => {
        $(
            #[allow(unused_unsafe, clippy::undocumented_unsafe_blocks)] // pointers are those of our own calls, as NVIDIA's header has them
            unsafe extern "C" fn $name($($argument: $of),*) -> c_uint {
                answer(|$state| {
                    $state.may_fail(stringify!($name))?;
                    unsafe { $body }
                    #[allow(unreachable_code)]
                    Ok(())
                })
            }
        )*
    };
}

/// The same for what gives something back, which does not fail unless there is nothing.
macro_rules! givers {
    ($($name:ident($state:ident $(, $argument:ident: $of:ty)*) $is_there:block)*) => {
        $(
            unsafe extern "C" fn $name($($argument: $of),*) -> c_uint {
                answer(|$state| if $is_there { Ok(()) } else { Err(INVALID_VALUE) })
            }
        )*
    };
}

unsafe extern "C" fn cuGetErrorName(_code: c_uint, _name: *mut *const c_char) -> c_uint {
    INVALID_VALUE
}

unsafe extern "C" fn cuEventQuery(event: sys::CUevent) -> c_uint {
    answer(|state| {
        state.may_fail("cuEventQuery")?;
        if state.broken != 0 {
            return Err(state.broken);
        }
        let stuck = state.is_stuck;
        let (mark, asked) = state.events.get_mut(&(event as u64)).ok_or(INVALID_VALUE)?;
        if stuck || !std::mem::replace(asked, true) {
            return Err(NOT_READY);
        }
        let mark = *mark;
        state.work(mark)
    })
}

fakes! {
    cuInit(state, _flags: c_uint) {}
    cuDeviceGetCount(state, count: *mut c_int) { *count = 1 }
    cuDeviceGet(state, device: *mut sys::CUdevice, index: c_int) { *device = index }
    cuDeviceGetName(state, name: *mut c_char, _length: c_int, _device: sys::CUdevice) { name.write(0) }
    cuDeviceGetUuid_v2(state, uuid: *mut sys::CUuuid, _device: sys::CUdevice) { (*uuid).bytes = [7; 16] }
    cuDeviceGetPCIBusId(state, id: *mut c_char, _length: c_int, _device: sys::CUdevice) {
        id.copy_from_nonoverlapping(c"0000:0F:00.0".as_ptr(), 13);
    }
    cuDeviceTotalMem_v2(state, bytes: *mut usize, _device: sys::CUdevice) { *bytes = 1 << 37 }
    cuDeviceGetAttribute(state, value: *mut c_int, _attribute: sys::CUdevice_attribute, _device: sys::CUdevice) {
        *value = 1;
    }
    cuDevicePrimaryCtxRetain(state, context: *mut sys::CUcontext, _device: sys::CUdevice) {
        *context = std::ptr::dangling_mut();
        state.contexts += 1;
    }
    cuCtxPushCurrent_v2(state, _context: sys::CUcontext) { state.current += 1 }
    cuMemGetInfo_v2(state, free: *mut usize, total: *mut usize) { (*free, *total) = (1 << 36, 1 << 37) }
    cuMemGetAllocationGranularity(
        state, granularity: *mut usize, _wanted: *const sys::CUmemAllocationProp,
        _which: sys::CUmemAllocationGranularity_flags
    ) { *granularity = GRANULARITY }
    cuMemCreate(
        state, handle: *mut sys::CUmemGenericAllocationHandle, size: usize,
        _wanted: *const sys::CUmemAllocationProp, _flags: c_ulonglong
    ) {
        if !size.is_multiple_of(GRANULARITY) { return Err(INVALID_VALUE); }
        *handle = state.id();
        // What another has left there.
        state.handles.insert(*handle, Rc::new(RefCell::new(vec![0xaa; size])));
    }
    cuMemExportToShareableHandle(
        state, to: *mut c_void, handle: sys::CUmemGenericAllocationHandle,
        _of: sys::CUmemAllocationHandleType, _flags: c_ulonglong
    ) {
        let memory = Rc::clone(state.handles.get(&handle).ok_or(INVALID_VALUE)?);
        let mut file = std::fs::File::from(memfd_create("fake", MemfdFlags::empty()).unwrap());
        file.write_all(&handle.to_le_bytes()).unwrap();
        state.exported.insert(handle, memory);
        *to.cast::<c_int>() = file.into_raw_fd();
    }
    cuMemImportFromShareableHandle(
        state, handle: *mut sys::CUmemGenericAllocationHandle, number: *mut c_void,
        _of: sys::CUmemAllocationHandleType
    ) {
        let mut file = ManuallyDrop::new(std::fs::File::from_raw_fd(number as c_int));
        let mut id = [0; 8];
        file.rewind().and_then(|()| file.read_exact(&mut id)).map_err(|_| INVALID_VALUE)?;
        let memory = Rc::clone(state.exported.get(&u64::from_le_bytes(id)).ok_or(INVALID_VALUE)?);
        *handle = state.id();
        state.handles.insert(*handle, memory);
    }
    cuMemAddressReserve(
        state, start: *mut sys::CUdeviceptr, size: usize, _alignment: usize, _wish: sys::CUdeviceptr,
        _flags: c_ulonglong
    ) {
        *start = state.id() << 40;
        state.reserved.insert(*start, size);
    }
    cuMemMap(
        state, start: sys::CUdeviceptr, size: usize, _offset: usize, handle: sys::CUmemGenericAllocationHandle,
        _flags: c_ulonglong
    ) {
        let memory = Rc::clone(state.handles.get(&handle).ok_or(INVALID_VALUE)?);
        if state.reserved.get(&start) != Some(&size) || size > memory.borrow().len() { return Err(INVALID_VALUE); }
        state.mapped.insert(start, memory);
    }
    cuMemSetAccess(
        state, start: sys::CUdeviceptr, _size: usize, _access: *const sys::CUmemAccessDesc, _count: usize
    ) { state.mapped.get(&start).ok_or(INVALID_VALUE)?; }
    cuMemGetAddressRange_v2(state, base: *mut sys::CUdeviceptr, size: *mut usize, pointer: sys::CUdeviceptr) {
        let (memory, _, start) = state.find(pointer, 0)?;
        (*base, *size) = (start, memory.borrow().len());
    }
    cuPointerGetAttribute(state, to: *mut c_void, _which: sys::CUpointer_attribute, pointer: sys::CUdeviceptr) {
        state.find(pointer, 0)?;
        *to.cast::<c_int>() = 0;
    }
    cuMemAlloc_v2(state, base: *mut sys::CUdeviceptr, size: usize) {
        *base = state.id() << 40;
        state.mapped.insert(*base, Rc::new(RefCell::new(vec![0xaa; size])));
    }
    cuIpcGetMemHandle(state, handle: *mut sys::CUipcMemHandle, _pointer: sys::CUdeviceptr) {
        (*handle).reserved = [1; 64];
    }
    cuIpcOpenMemHandle_v2(state, base: *mut sys::CUdeviceptr, handle: sys::CUipcMemHandle, _flags: c_uint) {
        let memory = Rc::clone(state.shared.get(&(handle.reserved[0] as u8)).ok_or(INVALID_VALUE)?);
        *base = state.id() << 40;
        state.mapped.insert(*base, memory);
    }
    cuMemHostRegister_v2(state, start: *mut c_void, _bytes: usize, _flags: c_uint) {
        if !state.pinned.insert(start as usize) { return Err(712); }
    }
    cuMemcpyHtoDAsync_v2(state, to: sys::CUdeviceptr, from: *const c_void, bytes: usize, _stream: sys::CUstream) {
        state.begin(to, bytes, Work::ToDevice(to, from.cast(), bytes))?;
    }
    cuMemcpyDtoHAsync_v2(state, to: *mut c_void, from: sys::CUdeviceptr, bytes: usize, _stream: sys::CUstream) {
        state.begin(from, bytes, Work::ToHost(to.cast(), from, bytes))?;
    }
    cuMemsetD8Async(state, start: sys::CUdeviceptr, _value: c_uchar, bytes: usize, _stream: sys::CUstream) {
        state.begin(start, bytes, Work::Zero(start, bytes))?;
    }
    cuStreamCreate(state, stream: *mut sys::CUstream, _flags: c_uint) {
        let id = state.id();
        state.streams.insert(id);
        *stream = id as sys::CUstream;
    }
    cuEventCreate(state, event: *mut sys::CUevent, _flags: c_uint) {
        let id = state.id();
        state.events.insert(id, (0, true));
        *event = id as sys::CUevent;
    }
    cuEventRecord(state, event: sys::CUevent, _stream: sys::CUstream) {
        let begun = state.begun;
        *state.events.get_mut(&(event as u64)).ok_or(INVALID_VALUE)? = (begun, false);
    }
}

givers! {
    cuDevicePrimaryCtxRelease_v2(state, _device: sys::CUdevice) { state.contexts -= 1; true }
    cuCtxPopCurrent_v2(state, _context: *mut sys::CUcontext) { state.current -= 1; true }
    cuMemRelease(state, handle: sys::CUmemGenericAllocationHandle) { state.handles.remove(&handle).is_some() }
    cuMemUnmap(state, start: sys::CUdeviceptr, _size: usize) { state.mapped.remove(&start).is_some() }
    cuMemAddressFree(state, start: sys::CUdeviceptr, size: usize) {
        !state.mapped.contains_key(&start) && state.reserved.remove(&start) == Some(size)
    }
    cuMemFree_v2(state, base: sys::CUdeviceptr) { state.mapped.remove(&base).is_some() }
    cuIpcCloseMemHandle(state, base: sys::CUdeviceptr) { state.mapped.remove(&base).is_some() }
    cuMemHostUnregister(state, start: *mut c_void) { state.pinned.remove(&(start as usize)) }
    cuStreamDestroy_v2(state, stream: sys::CUstream) { state.streams.remove(&(stream as u64)) }
    cuEventDestroy_v2(state, event: sys::CUevent) { state.events.remove(&(event as u64)).is_some() }
}

pub(super) fn calls() -> Calls {
    Calls {
        cuInit,
        cuDeviceGetCount,
        cuDeviceGet,
        cuDeviceGetName,
        cuDeviceGetUuid_v2,
        cuDeviceGetPCIBusId,
        cuDeviceTotalMem_v2,
        cuDeviceGetAttribute,
        cuDevicePrimaryCtxRetain,
        cuDevicePrimaryCtxRelease_v2,
        cuCtxPushCurrent_v2,
        cuCtxPopCurrent_v2,
        cuMemGetInfo_v2,
        cuMemGetAllocationGranularity,
        cuMemCreate,
        cuMemRelease,
        cuMemExportToShareableHandle,
        cuMemImportFromShareableHandle,
        cuMemAddressReserve,
        cuMemAddressFree,
        cuMemMap,
        cuMemUnmap,
        cuMemSetAccess,
        cuMemGetAddressRange_v2,
        cuPointerGetAttribute,
        cuMemAlloc_v2,
        cuMemFree_v2,
        cuIpcGetMemHandle,
        cuIpcOpenMemHandle_v2,
        cuIpcCloseMemHandle,
        cuMemHostRegister_v2,
        cuMemHostUnregister,
        cuMemcpyHtoDAsync_v2,
        cuMemcpyDtoHAsync_v2,
        cuMemsetD8Async,
        cuStreamCreate,
        cuStreamDestroy_v2,
        cuEventCreate,
        cuEventRecord,
        cuEventQuery,
        cuEventDestroy_v2,
        cuGetErrorName,
    }
}
