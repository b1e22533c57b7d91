//! What a GPU is. Needs no context.

use std::ffi::{c_char, c_int, c_uint};

use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute};

use super::{INVALID_VALUE, answer};
use crate::gpus::{MODEL, put_text};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_uint {
    answer(|state| {
        // SAFETY: the caller's number.
        unsafe { *count = c_int::try_from(state.gpus.len()).unwrap_or(c_int::MAX) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut sys::CUdevice, index: c_int) -> c_uint {
    answer(|state| {
        state.gpu(index)?;
        // SAFETY: the caller's number.
        unsafe { *device = index };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(to: *mut c_char, length: c_int, device: sys::CUdevice) -> c_uint {
    answer(|state| {
        state.gpu(device)?;
        // SAFETY: the caller's buffer.
        unsafe { text(to, length, MODEL) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid_v2(uuid: *mut sys::CUuuid, device: sys::CUdevice) -> c_uint {
    answer(|state| {
        let bytes = state.gpu(device)?.uuid();
        // SAFETY: the caller's 16 bytes.
        unsafe { (*uuid).bytes = bytes.map(|byte| byte as c_char) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetPCIBusId(
    to: *mut c_char,
    length: c_int,
    device: sys::CUdevice,
) -> c_uint {
    answer(|state| {
        let gpu = state.gpu(device)?;
        // SAFETY: the caller's buffer.
        unsafe { text(to, length, &gpu.address) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: sys::CUdevice) -> c_uint {
    answer(|state| {
        let gpu = state.gpu(device)?;
        // SAFETY: the caller's number.
        unsafe { *bytes = gpu.bytes };
        Ok(())
    })
}

/// It can do everything but be reached by an RDMA NIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(
    value: *mut c_int,
    attribute: c_uint,
    device: sys::CUdevice,
) -> c_uint {
    answer(|state| {
        state.gpu(device)?;
        let rdma = Attribute::CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED as c_uint;
        // SAFETY: the caller's number.
        unsafe { *value = c_int::from(attribute != rdma) };
        Ok(())
    })
}

/// # Safety
/// `length` bytes from `to` on can be written.
unsafe fn text(to: *mut c_char, length: c_int, text: &str) -> Result<(), c_uint> {
    let length = usize::try_from(length).map_err(|_| INVALID_VALUE)?;
    // SAFETY: as this function demands.
    if unsafe { put_text(to, length, text) } { Ok(()) } else { Err(INVALID_VALUE) }
}
