//! The variables that NIXL and UCX read from the process environment: what some must be, and setting them.
#![allow(unsafe_code)] // std::env::set_var is unsafe because C code may read the environment at the same time

use std::ffi::OsStr;
use std::path::Path;

use crate::gpu;

/// The value of `UCX_TLS` that allows these transports. Where sysfs shows an NVIDIA GPU, NIXL refuses a list that leaves CUDA
/// out, also to a process that moves host memory only; so there `cuda_copy` is added. Without a driver UCX warns and goes
/// on; with one it makes no CUDA context and takes no memory of the GPU.
pub fn transports(allowed: &str) -> String {
    if gpu::is_shown(Path::new("/sys")) { format!("{allowed},cuda_copy") } else { allowed.to_owned() }
}

/// What is to be set before the library is loaded. UCX' cache of what kind of memory is where misses what CUDA's driver
/// interface allocates, and then takes a GPU's memory for the host's.
pub fn before_loading() -> Option<(&'static str, &'static str)> {
    gpu::is_shown(Path::new("/sys")).then_some(("UCX_MEMTYPE_CACHE", "n"))
}

/// Sets each variable in this process.
///
/// UCX reads `UCX_*` when a backend is created, so a process that has its plugins loaded
/// ([`Session::start`](crate::Session::start)) can still decide transports and devices; `NIXL_PLUGIN_DIR` is read at
/// the first load of a plugin.
///
/// # Safety
/// While this runs, no other thread may read or write the environment through C (`getenv`, `setenv`). A session's
/// thread does so inside its commands only, so with no command pending and no other C library at work this holds.
pub unsafe fn set<K: AsRef<OsStr>, V: AsRef<OsStr>>(variables: impl IntoIterator<Item = (K, V)>) {
    for (name, value) in variables {
        // SAFETY: the caller promises that nobody else touches the environment now.
        unsafe { std::env::set_var(name, value) };
    }
}
