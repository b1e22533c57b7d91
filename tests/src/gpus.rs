//! GPUs in tests. Where the machine has none: a driver named fake, whose memory is that of the host. It shows that control and
//! workers do with GPUs what they should, and nothing about a real one: for that `cargo xtask test --gpu` runs the same tests.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nixl_transfer_crds::TransferNode;
use nixl_transfer_gpu::{Driver, LIBRARY};
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// Set where tests shall use the machine's own GPUs.
const REAL: &str = "NIXL_TRANSFER_REAL_GPUS";
/// Memory of each fake GPU.
pub const FAKE_BYTES: u64 = 64 << 20;
/// GPUs give memory in multiples of so many bytes.
pub const GRANULARITY: u64 = 2 << 20;

/// The GPUs of one node.
pub struct Gpus {
    /// A directory of their own, for fake ones.
    fake: Option<PathBuf>,
}

impl Gpus {
    /// So many fake ones, with files in this directory, or those of the machine.
    pub fn new(directory: PathBuf, count: usize) -> Result<Self> {
        if env::var_os(REAL).is_some() {
            return Ok(Self { fake: None });
        }
        fs::create_dir_all(&directory)?;
        let lines: String =
            (0..count).map(|at| format!("0000:{:02x}:00.0 {FAKE_BYTES}\n", 15 + 30 * at)).collect();
        fs::write(directory.join("gpus"), lines)?;
        let this = Self { fake: Some(directory) };
        symlink(devcluster::binary("libnixl_transfer_fake_gpu.so")?, this.library())?;
        Ok(this)
    }

    /// The driver's library, for those who load it.
    pub fn library(&self) -> PathBuf {
        self.fake.as_ref().map_or_else(|| LIBRARY.into(), |directory| directory.join("libfake.so"))
    }

    /// Begins or ends a fault of fake ones: `damage` or `hang`.
    ///
    /// # Errors
    /// Real ones have none on order.
    pub fn fault(&self, name: &str, on: bool) -> Result<()> {
        let file = self.fake.as_ref().context("a fake GPU")?.join(name);
        if on {
            fs::write(file, "")?
        } else {
            fs::remove_file(file)?
        }
        Ok(())
    }

    /// What the agent's configuration says of them.
    pub fn config(&self) -> Value {
        match &self.fake {
            Some(_) => json!({"nvidia": {"cuda": self.library(), "nvml": self.library()}}),
            None => json!({}),
        }
    }

    /// The driver in this process. It is one for all tests: that of the first which asks.
    pub fn driver(&self) -> Result<Driver> {
        Ok(Driver::load_from(self.library().to_str().context("a path of this test")?)?)
    }
}

impl Drop for Gpus {
    fn drop(&mut self) {
        if let Some(directory) = &self.fake {
            // What cannot be removed is in the directory for temporary files.
            let _ = fs::remove_dir_all(directory);
        }
    }
}

impl Cluster {
    /// UUIDs of a node's GPUs, as its TransferNode lists them, which may take a moment.
    pub async fn gpus_of(&self, node: &str) -> Result<Vec<String>> {
        let uuids = |node: &TransferNode| -> Vec<String> {
            let gpus = node.status.iter().flat_map(|status| &status.gpus);
            gpus.map(|gpu| gpu.uuid.clone()).collect()
        };
        let within = std::time::Duration::from_secs(30);
        self.wait_node(node, within, "with GPUs", |node| !uuids(node).is_empty()).await?;
        Ok(uuids(&kube::Api::all(self.client()).get(node).await?))
    }

    /// Pieces of memory of GPUs that the control process of a node's agent has.
    pub fn gpu_memory_held(&self, node: &str) -> Result<usize> {
        let control = self.agent(node).pid().context("a process")?;
        let open = fs::read_dir(Path::new("/proc").join(control.to_string()).join("fd"))?;
        let behind = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        let is_memory = |link: &PathBuf| {
            let link = link.to_string_lossy();
            link.starts_with("/memfd:fake-gpu-") || link == "/dev/nvidiactl"
        };
        Ok(behind.filter(is_memory).count())
    }
}
