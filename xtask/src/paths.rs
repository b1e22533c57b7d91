//! The directories that xtask works in. Reads the environment, creates nothing.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The checkout.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Links to what the tools step got; ignored by git.
pub fn tools() -> PathBuf {
    root().join(".tools")
}

/// `${XDG_CACHE_HOME:-~/.cache}/nixl-transfer`: shared by all checkouts of this user.
pub fn cache() -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME").filter(|path| Path::new(path).is_absolute()).map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base =
        base.or_else(home).context("neither XDG_CACHE_HOME nor HOME is set: where may tools be kept?")?;
    Ok(base.join("nixl-transfer"))
}

/// Where cargo puts the binaries of the development profile.
pub fn binaries() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("debug")
}
