//! GPUs in tests, where the machine has none: a driver named fake, whose memory is that of the host. It shows that control and
//! workers do with GPUs what they should, and nothing about a real one: that is `cargo xtask test --gpu`.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nixl_transfer_gpu::Driver;
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// Memory of each GPU.
pub const GPU_BYTES: u64 = 64 << 20;
/// What the driver says that a GPU's memory is a multiple of.
pub const GRANULARITY: u64 = 2 << 20;

/// The fake GPUs of one node, in a directory of their own.
pub struct FakeGpus(PathBuf);

impl FakeGpus {
    /// GPUs at these PCI addresses.
    pub fn at(directory: PathBuf, addresses: &[&str]) -> Result<Self> {
        fs::create_dir_all(&directory)?;
        let lines: String = addresses.iter().map(|address| format!("{address} {GPU_BYTES}\n")).collect();
        fs::write(directory.join("gpus"), lines)?;
        symlink(devcluster::binary("libnixl_transfer_fake_gpu.so")?, directory.join("libfake.so"))?;
        Ok(Self(directory))
    }

    /// Its path, for those who load it.
    pub fn library(&self) -> PathBuf {
        self.0.join("libfake.so")
    }

    /// What the agent's configuration says of them.
    pub fn config(&self) -> Value {
        json!({"nvidia": {"cuda": self.library(), "nvml": self.library()}})
    }

    /// The driver in this process. It is one for all tests: that of the first which asks.
    pub fn driver(&self) -> Result<Driver> {
        let library = self.library();
        Ok(Driver::load_from(library.to_str().context("a path of this test")?)?)
    }
}

impl Drop for FakeGpus {
    fn drop(&mut self) {
        // What cannot be removed is in the directory for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Cluster {
    /// Pieces of memory of fake GPUs that the control process of a node's agent has.
    pub fn gpu_memory_held(&self, node: &str) -> Result<usize> {
        let control = self.agent(node).pid().context("a process")?;
        let open = fs::read_dir(Path::new("/proc").join(control.to_string()).join("fd"))?;
        let behind = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        Ok(behind.filter(|link| link.to_string_lossy().starts_with("/memfd:fake-gpu-")).count())
    }
}
