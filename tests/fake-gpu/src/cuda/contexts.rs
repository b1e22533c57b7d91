//! Primary contexts, and which one is current in a thread. A context holds nothing: what was made in it outlives it here.

use std::{
    cell::RefCell,
    ffi::{c_int, c_uint},
    ptr,
};

use cudarc::driver::sys;

use super::{INVALID_CONTEXT, State, answer};
use crate::gpus::Gpu;

thread_local! {
    /// Devices whose contexts were made current here, the last one on top.
    static CURRENT: RefCell<Vec<c_int>> = const { RefCell::new(Vec::new()) };
}

/// Acts on this thread's contexts; a thread that is ending has none.
fn with_current<R>(act: impl FnOnce(&mut Vec<c_int>) -> Option<R>) -> Result<R, c_uint> {
    let acted = CURRENT.try_with(|current| act(&mut current.borrow_mut()));
    acted.ok().flatten().ok_or(INVALID_CONTEXT)
}

impl State {
    /// The device whose context is current in this thread.
    pub fn current(&self) -> Result<c_int, c_uint> {
        let device = with_current(|current| current.last().copied())?;
        if self.is_held(device) { Ok(device) } else { Err(INVALID_CONTEXT) }
    }

    /// The same as a GPU.
    pub fn current_gpu(&self) -> Result<(c_int, &'static Gpu), c_uint> {
        let device = self.current()?;
        Ok((device, self.gpu(device)?))
    }

    fn is_held(&self, device: c_int) -> bool {
        self.contexts.get(&device).is_some_and(|times| *times > 0)
    }
}

/// A context is its device's number and one, so that none is null.
fn context(device: c_int) -> sys::CUcontext {
    ptr::without_provenance_mut(device as usize + 1)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(to: *mut sys::CUcontext, device: sys::CUdevice) -> c_uint {
    answer(|state| {
        state.gpu(device)?;
        *state.contexts.entry(device).or_default() += 1;
        // SAFETY: the caller's pointer.
        unsafe { *to = context(device) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRelease_v2(device: sys::CUdevice) -> c_uint {
    answer(|state| {
        state.gpu(device)?;
        let times = state.contexts.entry(device).or_default();
        *times = times.checked_sub(1).ok_or(INVALID_CONTEXT)?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxPushCurrent_v2(pushed: sys::CUcontext) -> c_uint {
    answer(|state| {
        let held = state.contexts.keys().copied().find(|device| context(*device) == pushed);
        let device = held.filter(|device| state.is_held(*device)).ok_or(INVALID_CONTEXT)?;
        with_current(|current| {
            current.push(device);
            Some(())
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxPopCurrent_v2(popped: *mut sys::CUcontext) -> c_uint {
    answer(|_| {
        let device = with_current(Vec::pop)?;
        // SAFETY: the caller's pointer.
        unsafe { *popped = context(device) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_uint {
    answer(|state| {
        let (_, gpu) = state.current_gpu()?;
        // SAFETY: the caller's numbers.
        unsafe { (*free, *total) = (gpu.bytes, gpu.bytes) };
        Ok(())
    })
}
