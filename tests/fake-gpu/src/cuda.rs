//! libcuda, as far as `nixl-transfer-gpu` calls it: one process's state, behind one lock, and how each call answers. What the
//! calls do is in the rooms below.
#![allow(non_snake_case)] // NVIDIA's names

mod contexts;
mod copies;
mod devices;
mod ipc;
mod mappings;
mod memory;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{CStr, c_char, c_int, c_uint},
    panic::{AssertUnwindSafe, catch_unwind},
    process,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::io::Errno;

use crate::gpus::{self, Gpu};
use mappings::Mapping;
use memory::Memory;

/// Codes of errors and their names.
macro_rules! codes {
    ($($short:ident = $code:literal $name:literal,)*) => {
        $(const $short: c_uint = $code;)*

        fn name(code: c_uint) -> Option<&'static CStr> {
            match code {
                0 => Some(c"CUDA_SUCCESS"),
                $($code => Some($name),)*
                _ => None,
            }
        }
    };
}

codes! {
    INVALID_VALUE = 1 c"CUDA_ERROR_INVALID_VALUE",
    OUT_OF_MEMORY = 2 c"CUDA_ERROR_OUT_OF_MEMORY",
    NOT_INITIALIZED = 3 c"CUDA_ERROR_NOT_INITIALIZED",
    NO_DEVICE = 100 c"CUDA_ERROR_NO_DEVICE",
    INVALID_DEVICE = 101 c"CUDA_ERROR_INVALID_DEVICE",
    INVALID_CONTEXT = 201 c"CUDA_ERROR_INVALID_CONTEXT",
    INVALID_HANDLE = 400 c"CUDA_ERROR_INVALID_HANDLE",
    NOT_READY = 600 c"CUDA_ERROR_NOT_READY",
    ILLEGAL_ADDRESS = 700 c"CUDA_ERROR_ILLEGAL_ADDRESS",
    ALREADY_REGISTERED = 712 c"CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED",
    NOT_REGISTERED = 713 c"CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED",
    UNKNOWN = 999 c"CUDA_ERROR_UNKNOWN",
}

/// What an error of the kernel is for the caller.
fn code(errno: Errno) -> c_uint {
    match errno {
        Errno::NOMEM | Errno::NOSPC => OUT_OF_MEMORY,
        _ => UNKNOWN,
    }
}

/// What this process has made.
struct State {
    /// In NVML's order.
    gpus: &'static [Gpu],
    /// The process that has called `cuInit`: a fork of it has no driver (fact 10).
    process: Option<u32>,
    last: u64,
    /// How often the context of a device is held.
    contexts: BTreeMap<c_int, usize>,
    handles: BTreeMap<u64, Arc<Memory>>,
    /// Reserved addresses and their lengths.
    reserved: BTreeMap<u64, usize>,
    mapped: BTreeMap<u64, Mapping>,
    streams: BTreeSet<u64>,
    /// Events, and whether each is asked about for the first time since it was recorded.
    events: BTreeMap<u64, bool>,
    /// Host memory that is registered, and its lengths.
    pinned: BTreeMap<usize, usize>,
}

static STATE: Mutex<State> = Mutex::new(State {
    gpus: &[],
    process: None,
    last: 0,
    contexts: BTreeMap::new(),
    handles: BTreeMap::new(),
    reserved: BTreeMap::new(),
    mapped: BTreeMap::new(),
    streams: BTreeSet::new(),
    events: BTreeMap::new(),
    pinned: BTreeMap::new(),
});

impl State {
    /// A number that was not given yet.
    fn id(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The GPU that is a device: CUDA's index is NVML's in reverse.
    fn gpu(&self, device: c_int) -> Result<&'static Gpu, c_uint> {
        let index = usize::try_from(device).map_err(|_| INVALID_DEVICE)?;
        self.gpus.iter().rev().nth(index).ok_or(INVALID_DEVICE)
    }

    /// The device with this address.
    fn device_at(&self, address: &str) -> Option<c_int> {
        let index = self.gpus.iter().rev().position(|gpu| gpu.address.eq_ignore_ascii_case(address))?;
        c_int::try_from(index).ok()
    }
}

/// What a call that changes or reads the state answers. A panic is an answer too, and does not reach C.
fn answer(act: impl FnOnce(&mut State) -> Result<(), c_uint>) -> c_uint {
    let acted = catch_unwind(AssertUnwindSafe(|| {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        if state.process != Some(process::id()) {
            return Err(NOT_INITIALIZED);
        }
        act(&mut state)
    }));
    acted.unwrap_or(Err(UNKNOWN)).err().unwrap_or(0)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuInit(_flags: c_uint) -> c_uint {
    let Some(gpus) = gpus::list().filter(|gpus| !gpus.is_empty()) else { return NO_DEVICE };
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    if *state.process.get_or_insert_with(process::id) != process::id() {
        return NOT_INITIALIZED;
    }
    state.gpus = gpus;
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(code: c_uint, to: *mut *const c_char) -> c_uint {
    let name = name(code);
    // SAFETY: the caller's pointer.
    unsafe { *to = name.map_or(std::ptr::null(), CStr::as_ptr) };
    if name.is_some() { 0 } else { INVALID_VALUE }
}
