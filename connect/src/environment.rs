//! Setting the variables that NIXL and UCX read from the process environment, and nothing else.
#![allow(unsafe_code)] // std::env::set_var is unsafe because C code may read the environment at the same time

use std::ffi::OsStr;

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
