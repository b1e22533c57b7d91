//! NVML, as far as `nvml-wrapper` needs it to list GPUs: their names, addresses and memory. Needs no context, as the real one.
#![allow(non_snake_case)] // NVIDIA's names

use std::{
    ffi::{c_char, c_uint},
    sync::{Mutex, MutexGuard, PoisonError},
};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlMemory_v2_t, nvmlPciInfo_t,
    nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH as VERSION_MISMATCH,
    nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED as DRIVER_NOT_LOADED,
    nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE as INSUFFICIENT_SIZE,
    nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT,
    nvmlReturn_enum_NVML_ERROR_UNINITIALIZED as UNINITIALIZED, nvmlReturn_enum_NVML_SUCCESS as SUCCESS,
    nvmlReturn_t,
};

use crate::gpus::{self, Gpu, MODEL};

/// How often it was initialised and not shut down.
fn users() -> MutexGuard<'static, usize> {
    static USERS: Mutex<usize> = Mutex::new(0);
    USERS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(act: impl FnOnce() -> Result<(), nvmlReturn_t>) -> nvmlReturn_t {
    act().err().unwrap_or(SUCCESS)
}

fn all() -> Result<&'static [Gpu], nvmlReturn_t> {
    if *users() == 0 {
        return Err(UNINITIALIZED);
    }
    gpus::list().ok_or(UNINITIALIZED)
}

/// A device is its index and one, so that none is null.
fn gpu(device: nvmlDevice_t) -> Result<&'static Gpu, nvmlReturn_t> {
    let index = device.addr().checked_sub(1).ok_or(INVALID_ARGUMENT)?;
    all()?.get(index).ok_or(INVALID_ARGUMENT)
}

/// # Safety
/// `length` bytes from `to` on can be written.
unsafe fn text(to: *mut c_char, length: c_uint, text: &str) -> Result<(), nvmlReturn_t> {
    // SAFETY: as this function demands.
    let fits = unsafe { gpus::put_text(to, length as usize, text) };
    if fits { Ok(()) } else { Err(INSUFFICIENT_SIZE) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    answer(|| {
        gpus::list().ok_or(DRIVER_NOT_LOADED)?;
        *users() += 1;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    // SAFETY: it demands nothing.
    unsafe { nvmlInit_v2() }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    answer(|| {
        let mut users = users();
        *users = users.checked_sub(1).ok_or(UNINITIALIZED)?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nvmlReturn_t {
    answer(|| {
        let all = all()?;
        // SAFETY: the caller's number.
        unsafe { *count = c_uint::try_from(all.len()).unwrap_or(c_uint::MAX) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(
    index: c_uint,
    device: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    answer(|| {
        all()?.get(index as usize).ok_or(INVALID_ARGUMENT)?;
        // SAFETY: the caller's pointer.
        unsafe { *device = std::ptr::without_provenance_mut(index as usize + 1) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(
    device: nvmlDevice_t,
    to: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    answer(|| {
        gpu(device)?;
        // SAFETY: the caller's buffer.
        unsafe { text(to, length, MODEL) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(
    device: nvmlDevice_t,
    to: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    answer(|| {
        let digits = format!("{:032x}", u128::from_be_bytes(gpu(device)?.uuid()));
        let (a, b, c, d, e) = (&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]);
        // SAFETY: the caller's buffer.
        unsafe { text(to, length, &format!("GPU-{a}-{b}-{c}-{d}-{e}")) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: nvmlDevice_t,
    memory: *mut nvmlMemory_v2_t,
) -> nvmlReturn_t {
    answer(|| {
        let total = gpu(device)?.bytes as u64;
        // SAFETY: the caller's structure.
        let memory = unsafe { &mut *memory };
        // As NVML's header has it: the size, and the version in the uppermost byte.
        if memory.version as usize != size_of::<nvmlMemory_v2_t>() | 2 << 24 {
            return Err(VERSION_MISMATCH);
        }
        (memory.total, memory.reserved, memory.free, memory.used) = (total, 0, total, 0);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(
    device: nvmlDevice_t,
    info: *mut nvmlPciInfo_t,
) -> nvmlReturn_t {
    answer(|| {
        let pci = gpu(device)?.pci;
        // SAFETY: the caller's structure, of numbers and texts, for which zeros are values.
        let info = unsafe {
            info.write_bytes(0, 1);
            &mut *info
        };
        (info.domain, info.bus, info.device) = (pci.domain, pci.bus, pci.device);
        // Eight digits of domain, and four in the older text (fact 33).
        let rest = format!("{:02X}:{:02X}.{:X}", pci.bus, pci.device, pci.function);
        let (long, short) = (format!("{:08X}:{rest}", pci.domain), format!("{:04X}:{rest}", pci.domain));
        // SAFETY: buffers of the structure, with their lengths.
        unsafe {
            text(info.busId.as_mut_ptr(), info.busId.len() as c_uint, &long)?;
            text(info.busIdLegacy.as_mut_ptr(), info.busIdLegacy.len() as c_uint, &short)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{ffi::CStr, mem::zeroed, ptr::null_mut};

    #[test]
    fn gpus_are_listed_in_order_with_what_is_known_of_them() {
        unsafe {
            let mut count = 0;
            assert_eq!(nvmlDeviceGetCount_v2(&raw mut count), UNINITIALIZED);
            assert_eq!(nvmlShutdown(), UNINITIALIZED);
            assert_eq!((nvmlInit_v2(), nvmlInitWithFlags(0), nvmlShutdown()), (0, 0, 0));
            assert_eq!((nvmlDeviceGetCount_v2(&raw mut count), count), (SUCCESS, 2));
            let mut device = null_mut();
            assert_eq!(nvmlDeviceGetHandleByIndex_v2(2, &raw mut device), INVALID_ARGUMENT);
            assert_eq!(nvmlDeviceGetHandleByIndex_v2(1, &raw mut device), SUCCESS);

            let mut info: nvmlPciInfo_t = zeroed();
            assert_eq!(nvmlDeviceGetPciInfo_v3(device, &raw mut info), SUCCESS);
            assert_eq!(CStr::from_ptr(info.busId.as_ptr()), c"00000000:1C:00.0");
            assert_eq!(CStr::from_ptr(info.busIdLegacy.as_ptr()), c"0000:1C:00.0");
            let mut memory: nvmlMemory_v2_t = zeroed();
            assert_eq!(nvmlDeviceGetMemoryInfo_v2(device, &raw mut memory), VERSION_MISMATCH);
            memory.version = (size_of::<nvmlMemory_v2_t>() | 2 << 24) as u32;
            assert_eq!(
                (nvmlDeviceGetMemoryInfo_v2(device, &raw mut memory), memory.total),
                (SUCCESS, 8 << 20)
            );
            let mut buffer = [0; 96];
            assert_eq!(nvmlDeviceGetUUID(device, buffer.as_mut_ptr(), 40), INSUFFICIENT_SIZE);
            assert_eq!(nvmlDeviceGetUUID(device, buffer.as_mut_ptr(), 41), SUCCESS);
            assert!(CStr::from_ptr(buffer.as_ptr()).to_bytes().starts_with(b"GPU-"));
            assert_eq!(nvmlDeviceGetName(device, buffer.as_mut_ptr(), 96), SUCCESS);
            assert_eq!(CStr::from_ptr(buffer.as_ptr()).to_bytes(), MODEL.as_bytes());
            assert_eq!(nvmlDeviceGetName(null_mut(), buffer.as_mut_ptr(), 96), INVALID_ARGUMENT);
            assert_eq!((nvmlShutdown(), nvmlDeviceGetCount_v2(&raw mut count)), (SUCCESS, UNINITIALIZED));
        }
    }
}
