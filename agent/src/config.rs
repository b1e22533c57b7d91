//! The agent's command line and its configuration file. Nothing else reads the environment. Every error names the key,
//! the value and the remedy. Reads one file; no other I/O.

mod check;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Args, Parser, Subcommand};
use nixl_transfer_crds::{Quantity, names::SYSTEM_NAMESPACE};
use serde::Deserialize;

use crate::{devices::NVML, region::Budgets, volume::VolumeConfig};

/// The agent of nixl-transfer: moves files between this node and others with NVIDIA NIXL, as TransferTasks ask.
#[derive(Debug, Parser)]
#[command(name = "transfer-agent", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve this node until SIGTERM or SIGINT: watch TransferTasks, open files, supervise workers, write status back.
    ///
    /// Serves /metrics, /readyz (fails when no watch has been alive for a minute) and /healthz (fails when the main
    /// loop is stuck) on the address `listen` of the configuration file.
    Control {
        /// The configuration file, YAML.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Name of this node, if the configuration file has no `nodeName`.
        #[arg(long, env = "NODE_NAME", value_name = "NAME")]
        node_name: Option<String>,
        /// What is logged, for example `info` or `transfer_agent=debug`.
        #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
        log: String,
    },
    /// Start workers on the order of a control process, and end them all when it is gone.
    ///
    /// Control starts this itself unless its configuration names a socket; in a pod it is a container of its own.
    Launcher(LauncherArgs),
    /// Move data with NIXL. Started by the launcher, never by hand.
    #[command(hide = true)]
    Worker {
        /// The socket to control, open already.
        #[arg(long, value_name = "N")]
        fd: i32,
    },
}

/// Where the launcher meets control.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct LauncherArgs {
    /// Listen on this Unix socket, for one control process after the other.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Serve the control process at the other end of this open socket, then end.
    #[arg(long, value_name = "N")]
    pub fd: Option<i32>,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {key}: {problem}; {remedy}")]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// The key, as `volumes[1].name`; `.` for the whole file.
    pub key: String,
    /// What is wrong, with the value.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

/// The configuration file, checked.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Name of this node as Kubernetes has it; else from `--node-name` or `NODE_NAME`.
    #[serde(default)]
    pub node_name: String,
    /// Kubeconfig file; without it the pod's service account, or else `$KUBECONFIG` and `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the agents' Leases.
    #[serde(default = "default_namespace")]
    pub lease_namespace: String,
    /// Address of /metrics, /readyz and /healthz; port 0 takes a free one and logs it.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where NIXL is, as workers see it.
    pub nixl: NixlConfig,
    /// Network of the workers.
    #[serde(default)]
    pub network: NetworkConfig,
    /// Hops that may run at once on this node; told to the operator.
    #[serde(default = "default_slots")]
    pub slots: u32,
    /// Staging memory of all hops together.
    #[serde(default = "default_staging")]
    pub staging: Quantity,
    /// Workers that wait with NIXL loaded.
    #[serde(default = "default_warm_workers")]
    pub warm_workers: u32,
    /// The launcher, if it runs in a container of its own; else control starts one.
    pub launcher: Option<LauncherConfig>,
    /// Memory that regions may use.
    #[serde(default)]
    pub memory: MemoryConfig,
    /// Directories that jobs may use.
    pub volumes: Vec<VolumeConfig>,
    /// NVIDIA's libraries.
    #[serde(default)]
    pub nvidia: NvidiaConfig,
    /// Where the kernel's sysfs is. Another place than `/sys` is for tests of this project only; workers look at `/sys` always.
    #[serde(default = "default_sysfs")]
    pub sysfs: PathBuf,
    /// For tests of this project only: damages data on purpose before it is verified.
    #[serde(default)]
    pub faults: Faults,
}

/// Where NIXL is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NixlConfig {
    /// Path of `libnixl_capi.so`.
    pub library: PathBuf,
    /// Directory of NIXL's plugins.
    pub plugins: PathBuf,
}

/// Network of the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkConfig {
    /// Interfaces that data may use, and RDMA devices (`mlx5_0`); an RDMA device is also named by an interface over it.
    /// Default: every interface that is up, but for the loopback, and every RDMA device.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Whether `devices` stood in the file.
    #[serde(skip)]
    pub named: bool,
}

/// A launcher in a container of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LauncherConfig {
    /// The Unix socket where it listens.
    pub socket: PathBuf,
}

/// NVIDIA's libraries, each by the name that every driver has, or by its path. A node without GPUs has none.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NvidiaConfig {
    /// CUDA's driver, as workers see it.
    pub cuda: String,
    /// NVML, as control sees it.
    pub nvml: String,
}

impl Default for NvidiaConfig {
    fn default() -> Self {
        Self { cuda: nixl_transfer_gpu::LIBRARY.into(), nvml: NVML.into() }
    }
}

/// Memory that regions may use.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MemoryConfig {
    /// Host memory of all MemoryRegions of kind `agent` on this node together. The container's memory limit must have room
    /// for it.
    pub host: Quantity,
    /// Memory of each GPU for the MemoryRegions of kind `agent` on it together.
    pub gpu: Quantity,
    /// The Unix socket by which pods hand memory over: in a directory of the host that is mounted into them. Without it no
    /// pod can.
    pub socket: Option<PathBuf>,
    /// Whether pods may hand memory of GPUs over by CUDA IPC handles. A handle is a number that others may guess, and the agent
    /// reaches every GPU: a pod that guesses one reads and writes another's memory. Only where all pods may do that anyway.
    pub cuda_ipc: bool,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        let each = Quantity::from_bytes(1 << 30);
        Self { host: each.clone(), gpu: each, socket: None, cuda_ipc: false }
    }
}

/// Faults on purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Faults {
    /// The chunk of each sending hop with this number is damaged once, after its digest was made.
    pub corrupt_chunk: Option<u64>,
}

impl Config {
    /// Reads and checks a file. `node_name` stands in where the file has none.
    pub fn read(file: &Path, node_name: Option<&str>) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            file: file.display().to_string(),
            key: ".".into(),
            problem: format!("cannot be read: {error}"),
            remedy: "give a readable file with --config".into(),
        })?;
        Self::parse(&file.display().to_string(), &text, node_name)
    }

    /// Reads and checks a text; `file` is for messages.
    pub fn parse(file: &str, text: &str, node_name: Option<&str>) -> Result<Self, ConfigError> {
        check::parse(text, node_name).map_err(|(key, problem, remedy)| ConfigError {
            file: file.into(),
            key,
            problem,
            remedy,
        })
    }

    /// Memory that regions may take.
    pub fn budgets(&self) -> Budgets {
        // Checked when the file was read.
        let of = |quantity: &Quantity| quantity.bytes().unwrap_or(0);
        Budgets::new(of(&self.memory.host), of(&self.memory.gpu))
    }

    /// Staging memory in bytes.
    pub fn staging_bytes(&self) -> u64 {
        // Checked when the file was read.
        self.staging.bytes().unwrap_or(0)
    }
}

fn default_namespace() -> String {
    SYSTEM_NAMESPACE.into()
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8081))
}

fn default_sysfs() -> PathBuf {
    "/sys".into()
}

fn default_slots() -> u32 {
    4
}

fn default_staging() -> Quantity {
    Quantity::from_bytes(256 << 20)
}

fn default_warm_workers() -> u32 {
    2
}
