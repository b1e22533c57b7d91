//! Where the programs and libraries are: the environment first, else what `cargo xtask tools` linked into `.tools`.
//! Looks only; gets nothing.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The programs of a control plane.
#[derive(Clone, Debug)]
pub struct Assets {
    pub etcd: PathBuf,
    pub kube_apiserver: PathBuf,
    pub kubectl: PathBuf,
    /// Only namespace deletion and garbage collection need it.
    pub kube_controller_manager: Option<PathBuf>,
    pub helm: Option<PathBuf>,
    /// Says what Argo CD, Flux and Helm make of an object.
    pub health: Option<PathBuf>,
}

/// NIXL as the agents get it.
#[derive(Clone, Debug)]
pub struct NixlPaths {
    /// `libnixl_capi.so`.
    pub library: PathBuf,
    /// The directory with `libplugin_UCX.so`.
    pub plugins: PathBuf,
}

impl Assets {
    /// `NIXL_TRANSFER_ASSETS` (a directory), else `.tools/bin` of the checkout.
    pub fn find() -> Result<Self> {
        Self::in_directory(&assets())
    }

    /// The programs in one directory. An error names what is missing there.
    pub fn in_directory(dir: &Path) -> Result<Self> {
        let controller_manager = dir.join("kube-controller-manager");
        let (helm, health) = (dir.join("helm"), dir.join("health"));
        Ok(Self {
            etcd: existing(dir.join("etcd"))?,
            kube_apiserver: existing(dir.join("kube-apiserver"))?,
            kubectl: existing(dir.join("kubectl"))?,
            kube_controller_manager: controller_manager.is_file().then_some(controller_manager),
            helm: helm.is_file().then_some(helm),
            health: health.is_file().then_some(health),
        })
    }
}

impl NixlPaths {
    /// `NIXL_TRANSFER_NIXL_LIBRARY` and `NIXL_TRANSFER_NIXL_PLUGINS`, else `.tools/nixl` of the checkout.
    pub fn find() -> Result<Self> {
        let nixl = tools_dir().join("nixl");
        let or = |name: &str, path: &str| env::var_os(name).map_or_else(|| nixl.join(path), PathBuf::from);
        Ok(Self {
            library: existing(or("NIXL_TRANSFER_NIXL_LIBRARY", "lib/libnixl_capi.so"))?,
            plugins: existing(or("NIXL_TRANSFER_NIXL_PLUGINS", "plugins"))?,
        })
    }
}

/// Another tool, in the same directory.
pub fn tool(name: &str) -> Result<PathBuf> {
    existing(assets().join(name))
}

fn assets() -> PathBuf {
    env::var_os("NIXL_TRANSFER_ASSETS").map_or_else(|| tools_dir().join("bin"), PathBuf::from)
}

/// A program of this workspace: in `NIXL_TRANSFER_BIN_DIR`, else beside the running test (`target/debug`).
pub fn binary(name: &str) -> Result<PathBuf> {
    if let Some(dir) = env::var_os("NIXL_TRANSFER_BIN_DIR") {
        return existing(PathBuf::from(dir).join(name));
    }
    let current = env::current_exe()?;
    let dir = current.ancestors().skip(1).find(|dir| dir.join(name).is_file());
    match dir {
        Some(dir) => Ok(dir.join(name)),
        None => {
            bail!("{name} is not built: run `cargo build -p {name}` (looked above {})", current.display())
        }
    }
}

/// The user's cache directory of this project; `None` where the environment names none.
pub(crate) fn cache() -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("nixl-transfer"))
}

fn tools_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools")
}

fn existing(path: PathBuf) -> Result<PathBuf> {
    match path.canonicalize() {
        // The directory stays as named: the loader finds NIXL's other libraries relative to the link's place too.
        Ok(_) => Ok(std::path::absolute(path)?),
        Err(error) => bail!("{} is missing ({error}): run `cargo xtask tools`", path.display()),
    }
}
