//! The devices of this node: RDMA and Ethernet NICs and their places from sysfs, GPUs from NVML, and how far they are from
//! each other. `sysfs` and `nvml` read; all else decides.

mod distance;
mod nics;
mod numa;
mod nvml;
mod pci;
mod status;
mod sysfs;
#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;

pub use distance::{Distance, distance, nearest};
pub use nics::Nic;
pub use numa::NumaNode;
pub use nvml::{Absent, Gpu, LIBRARY as NVML, gpus};
pub use pci::{Address, Place};
pub use status::{Shown, kept, shown};

use pci::Function;
use sysfs::Sysfs;

/// Vendor NVIDIA, and PCI's class and subclass of VGA and of 3D controllers.
const NVIDIA: u32 = 0x10de;
const DISPLAY: [u32; 2] = [0x0300, 0x0302];
/// A Data Direct function of a ConnectX-8: a DMA controller that no software drives by itself.
const DATA_DIRECT: (u32, u32) = (0x15b3, 0x2100);

/// What sysfs shows of a node's devices, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// Ports of RDMA devices, then Ethernet interfaces, each sorted by name.
    pub nics: Vec<Nic>,
    /// NVIDIA GPUs by their PCI class, sorted by address. What they are only NVML knows.
    pub displays: Vec<Place>,
    /// NUMA nodes, by number.
    pub numa: Vec<NumaNode>,
    /// Data Direct functions, sorted by address.
    pub data_direct: Vec<Place>,
    /// A module that lets NICs register GPU memory is loaded. Neither proof nor disproof: dma-buf needs none.
    pub peer_memory_module: bool,
    /// The module of GPUDirect Storage is loaded.
    pub storage_module: bool,
}

/// The devices of a node, by all who know of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// By sysfs.
    pub devices: Devices,
    /// GPUs by NVML; `None` before it has answered.
    pub gpus: Option<Vec<Gpu>>,
}

impl Hardware {
    /// Where sysfs has the GPU with this UUID.
    pub fn place_of(&self, uuid: &str) -> Option<&Place> {
        let address = self.gpus.iter().flatten().find(|gpu| gpu.uuid == uuid)?.address;
        self.devices.displays.iter().find(|place| Some(place.address) == address)
    }
}

/// Reads all of it beneath a root that is `/sys`, but in tests. What is missing, unreadable or makes no sense is unknown:
/// devices come and go while this reads.
pub fn look(root: &Path) -> Devices {
    let sysfs = Sysfs::new(root);
    let functions = pci::functions(&sysfs);
    let places = |wanted: &dyn Fn(&Function) -> bool| {
        functions
            .iter()
            .filter(|function| wanted(function))
            .filter_map(|function| Place::read(&sysfs, function.address))
            .collect()
    };
    Devices {
        nics: nics::nics(&sysfs),
        numa: numa::nodes(&sysfs),
        displays: places(&|function| function.vendor == NVIDIA && DISPLAY.contains(&(function.class >> 8))),
        data_direct: places(&|function| (function.vendor, function.device) == DATA_DIRECT),
        peer_memory_module: sysfs.exists("module/nvidia_peermem".as_ref())
            || sysfs.exists("kernel/mm/memory_peers/nv_mem/version".as_ref()),
        storage_module: sysfs.exists("module/nvidia_fs".as_ref()),
    }
}
