//! The GPUs and NICs in a TransferNode. `pciBusID`, `pcieRoot` and `numaNode` have the names and forms of the attributes of
//! `resource.kubernetes.io`, so that they compare with those of a ResourceSlice. Types only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Budget;

/// As many GPUs as a status holds.
pub const MAX_GPUS: usize = 64;
/// As many NICs as a status holds.
pub const MAX_NICS: usize = 128;
/// As many NICs as a GPU names.
pub const MAX_NICS_OF_A_GPU: usize = 32;
/// Longest name of a device in sysfs, and of a GPU's UUID.
pub const MAX_NAME: usize = 64;
/// Longest model of a GPU: NVML's own limit.
pub const MAX_MODEL: usize = 96;
/// Longest PCI address, with the domains of five digits and more that some machines have.
pub const MAX_ADDRESS: usize = 16;

/// A GPU, as NVML and sysfs tell of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuStatus {
    /// NVML's index: by PCI address, the same as in `nvidia-smi`. CUDA may count in another order.
    #[schemars(range(min = 0))]
    pub index: i64,
    /// NVML's UUID, `GPU-…`.
    #[schemars(length(max = 64))]
    pub uuid: String,
    /// NVML's name of the model, for example `NVIDIA H200`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 96))]
    pub model: String,
    /// Memory in bytes by NVML, with what the driver keeps for itself. Absent where NVML cannot tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub memory: Option<i64>,
    /// Its memory for MemoryRegions of kind `agent`, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<Budget>,
    /// PCI address, for example `0000:0f:00.0`.
    #[serde(rename = "pciBusID", default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 16))]
    pub pci_bus_id: String,
    /// PCI root of it, for example `pci0000:07`, from sysfs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 16))]
    pub pcie_root: String,
    /// NUMA node, from sysfs. Absent where the machine does not tell, as in most virtual machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub numa_node: Option<i64>,
    /// Names of the node's NICs, RDMA and Ethernet, nearest first: behind the same PCI switch, below the same PCI root, on the
    /// same NUMA node, elsewhere; among equals those whose link is active, then the faster. A preference, never a requirement.
    /// At most 32. Empty where sysfs does not show the GPU.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 64)))]
    pub nics: Vec<String>,
    /// PCI address of a Data Direct function behind the same PCI switch: a ConnectX-8 reaches the GPU through it, whatever the
    /// distance of its own address. Sysfs does not tell which NIC that is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 16))]
    pub data_direct: String,
}

/// A port of an RDMA device, or an Ethernet interface, as sysfs shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NicStatus {
    /// Name of the RDMA device, or of the interface where there is none. The ports of one RDMA device share it.
    #[schemars(length(max = 64))]
    pub name: String,
    /// Number of the port of an RDMA device. Absent for an interface without RDMA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub port: Option<i64>,
    /// The network interface over the same link, if the agent's network namespace has it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub netdev: String,
    /// State of the link: of the port for RDMA, `operstate` for Ethernet.
    pub state: LinkState,
    /// `InfiniBand` or `Ethernet`; `Unspecified` for devices with a protocol of their own, such as EFA.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub link_layer: String,
    /// Rate of the link in Mb/s (10^6 bits per second). Absent where the kernel does not know it, as with virtio, and for a
    /// link that is not active, of which it says something misleading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub rate: Option<i64>,
    /// PCI address of the function that carries it, for example `0000:0c:00.0`. Absent for a device without one.
    #[serde(rename = "pciBusID", default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 16))]
    pub pci_bus_id: String,
    /// PCI root of it, for example `pci0000:07`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 16))]
    pub pcie_root: String,
    /// NUMA node. Absent where the machine does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub numa_node: Option<i64>,
}

/// State of a link. `Armed` and `Init` are of InfiniBand: up, but without a subnet manager's word.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema,
)]
pub enum LinkState {
    /// It carries data.
    Active,
    /// Ready, not yet activated by the subnet manager.
    Armed,
    /// Up, not yet configured by the subnet manager.
    Init,
    /// No link.
    Down,
    /// The driver does not tell.
    #[default]
    Unknown,
}

impl LinkState {
    /// As the status has it.
    pub fn as_str(self) -> &'static str {
        match self {
            LinkState::Active => "Active",
            LinkState::Armed => "Armed",
            LinkState::Init => "Init",
            LinkState::Down => "Down",
            LinkState::Unknown => "Unknown",
        }
    }
}

/// Which kernel modules for GPUDirect sysfs shows. A module that is there is no proof that it works, and without the first GPU
/// memory may still be registered by dma-buf, which only CUDA can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuDirectStatus {
    /// `nvidia_peermem`, or `nv_mem` as a client of the RDMA core: a NIC may read and write GPU memory.
    pub peer_memory_module: bool,
    /// `nvidia_fs`: GPUDirect Storage.
    pub storage_module: bool,
}
