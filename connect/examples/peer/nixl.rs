//! Where `peer` finds NIXL, and the environment that NIXL and UCX need.
#![allow(unsafe_code)] // the environment of a process has no safe setter

use std::path::{Path, PathBuf};

use nixl_connect::{Library, LibraryError, environment};

/// Call it first of all.
pub fn prepare_environment() {
    let mut variables = vec![("NIXL_PLUGIN_DIR", plugins().into_os_string())];
    // UCX takes over signals, writes its log to standard output, and spins for 0.4 s at its start, unless it is told
    // otherwise.
    for (name, value) in
        [("UCX_ERROR_SIGNALS", ""), ("UCX_LOG_FILE", "stderr"), ("UCX_MEM_MMAP_HOOK_MODE", "reloc")]
    {
        if std::env::var_os(name).is_none() {
            variables.push((name, value.into()));
        }
    }
    // SAFETY: `main` calls this before anything else, so there is no other thread.
    unsafe { environment::set(variables) };
}

pub fn load() -> Result<Library, LibraryError> {
    Library::load(&path("NIXL_TRANSFER_NIXL_LIBRARY", "lib/libnixl_capi.so"), &plugins())
}

fn plugins() -> PathBuf {
    path("NIXL_TRANSFER_NIXL_PLUGINS", "plugins")
}

/// From the environment, or else the one that `cargo xtask tools` has fetched.
fn path(variable: &str, otherwise: &str) -> PathBuf {
    let tools = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/nixl").join(otherwise);
    std::env::var_os(variable).map_or_else(tools, PathBuf::from)
}
