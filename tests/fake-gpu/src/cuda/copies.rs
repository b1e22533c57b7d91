//! Copies, streams, events, and host memory that is registered. A copy is done when it is begun, under the lock, so that
//! nothing can be unmapped meanwhile; an event says "not yet" once all the same, so that whoever asks only once is found out.

use std::ffi::{c_uchar, c_uint, c_void};

use cudarc::driver::sys;

use crate::gpus::has_fault;

use super::{ALREADY_REGISTERED, INVALID_HANDLE, INVALID_VALUE, NOT_READY, NOT_REGISTERED, State, answer};

/// A fault: what is copied to a GPU has a wrong bit.
const DAMAGE: &str = "damage";
/// A fault: no copy ends.
const HANG: &str = "hang";

impl State {
    /// A stream of ours, or the one that is always there.
    fn stream(&self, stream: sys::CUstream) -> Result<(), c_uint> {
        let known = stream.is_null() || self.streams.contains(&(stream.addr() as u64));
        if known { Ok(()) } else { Err(INVALID_HANDLE) }
    }

    fn event(&mut self, event: sys::CUevent) -> Result<&mut bool, c_uint> {
        self.events.get_mut(&(event.addr() as u64)).ok_or(INVALID_HANDLE)
    }

    /// A new id, also as a pointer.
    fn id_as<T>(&mut self) -> (u64, *mut T) {
        let id = self.id();
        (id, std::ptr::without_provenance_mut(id as usize))
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: sys::CUdeviceptr,
    from: *const c_void,
    bytes: usize,
    stream: sys::CUstream,
) -> c_uint {
    answer(|state| {
        state.current()?;
        state.stream(stream)?;
        let to = state.writable(to, bytes)?;
        // SAFETY: the caller's bytes, and mapped ones; they may be the same memory.
        unsafe { to.copy_from(from.cast(), bytes) };
        if bytes > 0 && has_fault(DAMAGE) {
            // SAFETY: the first of them.
            unsafe { *to ^= 1 };
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: sys::CUdeviceptr,
    bytes: usize,
    stream: sys::CUstream,
) -> c_uint {
    answer(|state| {
        state.current()?;
        state.stream(stream)?;
        let from = state.readable(from, bytes)?;
        // SAFETY: as above.
        unsafe { to.cast::<u8>().copy_from(from, bytes) };
        Ok(())
    })
}

/// For a workload without streams, such as `client/python/example_gpu.py`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: sys::CUdeviceptr, from: *const c_void, bytes: usize) -> c_uint {
    // SAFETY: the caller's bytes.
    unsafe { cuMemcpyHtoDAsync_v2(to, from, bytes, std::ptr::null_mut()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: sys::CUdeviceptr, bytes: usize) -> c_uint {
    // SAFETY: the caller's bytes.
    unsafe { cuMemcpyDtoHAsync_v2(to, from, bytes, std::ptr::null_mut()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8Async(
    start: sys::CUdeviceptr,
    value: c_uchar,
    bytes: usize,
    stream: sys::CUstream,
) -> c_uint {
    answer(|state| {
        state.current()?;
        state.stream(stream)?;
        let start = state.writable(start, bytes)?;
        // SAFETY: mapped for writing.
        unsafe { start.write_bytes(value, bytes) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut sys::CUstream, _flags: c_uint) -> c_uint {
    answer(|state| {
        state.current()?;
        let (id, made) = state.id_as();
        state.streams.insert(id);
        // SAFETY: the caller's pointer.
        unsafe { *stream = made };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamDestroy_v2(stream: sys::CUstream) -> c_uint {
    answer(|state| {
        state.current()?;
        if state.streams.remove(&(stream.addr() as u64)) { Ok(()) } else { Err(INVALID_HANDLE) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut sys::CUevent, _flags: c_uint) -> c_uint {
    answer(|state| {
        state.current()?;
        let (id, made) = state.id_as();
        state.events.insert(id, false);
        // SAFETY: the caller's pointer.
        unsafe { *event = made };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventRecord(event: sys::CUevent, stream: sys::CUstream) -> c_uint {
    answer(|state| {
        state.current()?;
        state.stream(stream)?;
        *state.event(event)? = true;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventQuery(event: sys::CUevent) -> c_uint {
    answer(|state| {
        state.current()?;
        let is_first = std::mem::take(state.event(event)?);
        if is_first || has_fault(HANG) { Err(NOT_READY) } else { Ok(()) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventDestroy_v2(event: sys::CUevent) -> c_uint {
    answer(|state| {
        state.current()?;
        state.events.remove(&(event.addr() as u64)).map(drop).ok_or(INVALID_HANDLE)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostRegister_v2(start: *mut c_void, bytes: usize, _flags: c_uint) -> c_uint {
    answer(|state| {
        state.current()?;
        let start = start.addr();
        let end = start.checked_add(bytes).filter(|end| *end > start).ok_or(INVALID_VALUE)?;
        let before = state.pinned.range(..end).next_back();
        if before.is_some_and(|(other, bytes)| other + bytes > start) {
            return Err(ALREADY_REGISTERED);
        }
        state.pinned.insert(start, bytes);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostUnregister(start: *mut c_void) -> c_uint {
    answer(|state| {
        state.current()?;
        state.pinned.remove(&start.addr()).map(drop).ok_or(NOT_REGISTERED)
    })
}
