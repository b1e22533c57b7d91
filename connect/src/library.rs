//! Loads `libnixl_capi.so` by its full path and makes sure that nixl-sys will find that very copy, so that no later
//! call can abort the process. Does I/O: the dynamic loader, and reading the wheel's metadata beside the library.
#![allow(unsafe_code)] // dlopen and dlsym

mod symbols;
mod version;

use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

pub use version::LibraryVersion;

/// The oldest NIXL that is taken.
pub const OLDEST_VERSION: &str = "1.5";
/// The plugin that must lie in the plugin directory.
pub const UCX_PLUGIN_FILE: &str = "libplugin_UCX.so";
/// The variable by which NIXL finds its plugins; its C API has no other way.
const PLUGIN_DIRECTORY_VARIABLE: &str = "NIXL_PLUGIN_DIR";
/// The name under which nixl-sys opens the library.
const NAME: &CStr = c"libnixl_capi.so";

/// Why NIXL cannot be used. None of these leaves anything loaded.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// No file at the path.
    #[error("no NIXL library at {path}: {source}")]
    Missing {
        /// The path that was asked for.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// The dynamic loader refused the file, or one that it needs.
    #[error("{path} cannot be loaded: {reason}")]
    NotLoadable {
        /// The path that was asked for.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// A shared library, but not NIXL's C API.
    #[error("{path} is not NIXL's C API: it has no {symbol}")]
    NotNixl {
        /// The path that was asked for.
        path: PathBuf,
        /// The function that even the oldest NIXL has.
        symbol: &'static str,
    },
    /// NIXL before 1.5.
    #[error(
        "{path} is NIXL older than {OLDEST_VERSION}{found}: it has no {symbol}; install nixl {OLDEST_VERSION} or newer"
    )]
    TooOld {
        /// The path that was asked for.
        path: PathBuf,
        /// The first function that is missing.
        symbol: &'static str,
        /// The version from the wheel's metadata as ` (1.4.1)`, or empty.
        found: String,
    },
    /// The library would not be the one that nixl-sys opens by name.
    #[error("{path} does not answer to the name libnixl_capi.so, or another copy of NIXL is loaded already")]
    AnotherCopy {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// The plugin directory lacks the UCX plugin.
    #[error("no {UCX_PLUGIN_FILE} in the plugin directory {directory}: {source}")]
    NoUcxPlugin {
        /// The directory that was asked for.
        directory: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// The environment sends NIXL to other plugins than the caller meant.
    #[error(
        "NIXL_PLUGIN_DIR is {found}, it must be {directory}: set it before the process starts, or with environment::set"
    )]
    PluginDirectory {
        /// The directory that was asked for.
        directory: PathBuf,
        /// What the variable holds, or `not set`.
        found: String,
    },
}

/// Proof that a usable NIXL is loaded in this process. It stays loaded until the process ends.
#[derive(Debug, Clone)]
pub struct Library {
    path: PathBuf,
    plugins: PathBuf,
    version: LibraryVersion,
}

impl Library {
    /// Loads the library at `path` (the file `libnixl_capi.so` itself) and checks that NIXL will take its plugins from
    /// `plugins`, which must be the value of `NIXL_PLUGIN_DIR`.
    ///
    /// # Errors
    /// Every way in which this can fail has its own [`LibraryError`]; the process is never aborted.
    pub fn load(path: &Path, plugins: &Path) -> Result<Self, LibraryError> {
        let missing = |source| LibraryError::Missing { path: path.to_owned(), source };
        let canonical = path.canonicalize().map_err(missing)?;
        std::fs::File::open(&canonical).map_err(missing)?;
        check_plugins(plugins)?;

        let version = LibraryVersion::beside(&canonical);
        let handle = Handle::open(&canonical)
            .map_err(|reason| LibraryError::NotLoadable { path: path.to_owned(), reason })?;
        if !handle.has(symbols::ANY_VERSION) {
            return Err(LibraryError::NotNixl { path: path.to_owned(), symbol: text(symbols::ANY_VERSION) });
        }
        if let Some(symbol) = symbols::NEEDED.iter().find(|symbol| !handle.has(symbol)) {
            let found = version.known().map(|version| format!(" ({version})")).unwrap_or_default();
            return Err(LibraryError::TooOld { path: path.to_owned(), symbol: text(symbol), found });
        }
        // nixl-sys will call dlopen("libnixl_capi.so"): the loader answers with a loaded library of that SONAME. If that
        // is not ours, its first call would abort the process, or run another copy than the one checked here.
        match Handle::loaded(NAME) {
            Some(named) if named.is(&handle) => {}
            _ => return Err(LibraryError::AnotherCopy { path: path.to_owned() }),
        }
        handle.keep();
        Ok(Self { path: canonical, plugins: plugins.to_owned(), version })
    }

    /// The library's file, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of NIXL's plugins.
    pub fn plugins(&self) -> &Path {
        &self.plugins
    }

    /// What can be known about the version.
    pub fn version(&self) -> &LibraryVersion {
        &self.version
    }
}

fn check_plugins(directory: &Path) -> Result<(), LibraryError> {
    std::fs::File::open(directory.join(UCX_PLUGIN_FILE))
        .map_err(|source| LibraryError::NoUcxPlugin { directory: directory.to_owned(), source })?;
    let found = std::env::var_os(PLUGIN_DIRECTORY_VARIABLE);
    if found.as_deref() == Some(directory.as_os_str()) {
        return Ok(());
    }
    let found = found.map_or_else(|| "not set".to_owned(), |value| value.to_string_lossy().into_owned());
    Err(LibraryError::PluginDirectory { directory: directory.to_owned(), found })
}

fn text(symbol: &'static CStr) -> &'static str {
    symbol.to_str().unwrap_or("?")
}

/// A reference to a loaded library; given back on drop unless kept.
struct Handle(NonNull<c_void>);

impl Handle {
    /// RTLD_GLOBAL because nixl-sys' own dlopen by name must find this copy, and NIXL's plugins its symbols.
    fn open(path: &Path) -> Result<Self, String> {
        let path =
            CString::new(path.as_os_str().as_bytes()).map_err(|_| "the path holds a NUL byte".to_owned())?;
        // SAFETY: a NUL-terminated string and valid flags; the library's initialisers are trusted as much as NIXL is.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        NonNull::new(handle).map(Self).ok_or_else(last_error)
    }

    /// The loaded library with this SONAME, if there is one. Loads nothing.
    fn loaded(name: &CStr) -> Option<Self> {
        // SAFETY: a NUL-terminated string and valid flags.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD) };
        NonNull::new(handle).map(Self)
    }

    fn has(&self, symbol: &CStr) -> bool {
        // SAFETY: a live handle and a NUL-terminated name; the address is only compared, never called.
        !unsafe { libc::dlsym(self.0.as_ptr(), symbol.as_ptr()) }.is_null()
    }

    /// The loader gives one handle per loaded library.
    fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// Leaves the library loaded for the life of the process.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle came from dlopen and is closed once.
        unsafe { libc::dlclose(self.0.as_ptr()) };
    }
}

fn last_error() -> String {
    // SAFETY: dlerror gives NULL or a NUL-terminated string that is valid until this thread's next dl call.
    let message = unsafe { libc::dlerror() };
    if message.is_null() {
        return "the loader gave no reason".to_owned();
    }
    // SAFETY: not NULL, see above; copied at once.
    unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned()
}
