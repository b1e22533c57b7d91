//! What a TransferNode shows of the devices, within the bounds of its schema. Pure.

use nixl_transfer_crds::node::devices::{
    GpuDirectStatus, GpuStatus, LinkState, MAX_ADDRESS, MAX_GPUS, MAX_MODEL, MAX_NAME, MAX_NICS,
    MAX_NICS_OF_A_GPU, NicStatus,
};
use serde::Serialize;

use super::{
    Devices,
    distance::{Distance, distance, nearest},
    nics::Nic,
    nvml::Gpu,
    pci::Place,
};

/// The part of the status that is about devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// GPUs.
    pub gpus: Vec<GpuStatus>,
    /// NICs.
    pub nics: Vec<NicStatus>,
    /// Modules for GPUDirect, if any is loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_direct: Option<GpuDirectStatus>,
}

/// GPUs and NICs as a status has them.
pub fn shown(gpus: &[Gpu], devices: &Devices) -> Shown {
    let modules = GpuDirectStatus {
        peer_memory_module: devices.peer_memory_module,
        storage_module: devices.storage_module,
    };
    let nics = kept(&devices.nics);
    Shown {
        gpus: gpus.iter().take(MAX_GPUS).map(|found| gpu(found, &nics, devices)).collect(),
        nics: nics.iter().map(nic).collect(),
        gpu_direct: (modules != GpuDirectStatus::default()).then_some(modules),
    }
}

/// As many as the status holds, in their order: first those whose link is active, then those with RDMA. A card can have
/// hundreds of virtual functions.
pub fn kept(nics: &[Nic]) -> Vec<Nic> {
    let mut order: Vec<usize> = (0..nics.len()).collect();
    order.sort_by_key(|at| (nics[*at].state != LinkState::Active, nics[*at].port.is_none(), *at));
    order.truncate(MAX_NICS);
    order.sort_unstable();
    order.into_iter().map(|at| nics[at].clone()).collect()
}

fn gpu(gpu: &Gpu, nics: &[Nic], devices: &Devices) -> GpuStatus {
    let place = devices.displays.iter().find(|place| Some(place.address) == gpu.address);
    let mut near = place.map(|place| nearest(place, nics)).unwrap_or_default();
    near.truncate(MAX_NICS_OF_A_GPU);
    let data_direct = place.and_then(|place| {
        devices.data_direct.iter().find(|function| distance(place, function) == Distance::SameSwitch)
    });
    GpuStatus {
        index: gpu.index.into(),
        uuid: cut(&gpu.uuid, MAX_NAME),
        model: cut(&gpu.model, MAX_MODEL),
        memory: gpu.memory.map(whole),
        regions: None,
        pci_bus_id: gpu.address.map(|address| cut(&address.to_string(), MAX_ADDRESS)).unwrap_or_default(),
        pcie_root: root(place),
        numa_node: numa(place),
        nics: near.iter().map(|name| cut(name, MAX_NAME)).collect(),
        data_direct: bus_id(data_direct),
    }
}

fn nic(nic: &Nic) -> NicStatus {
    let place = nic.place.as_ref();
    NicStatus {
        name: cut(&nic.name, MAX_NAME),
        port: nic.port.map(i64::from),
        netdev: cut(nic.netdev.as_deref().unwrap_or_default(), MAX_NAME),
        state: nic.state,
        link_layer: cut(&nic.link_layer, MAX_NAME),
        rate: nic.rate.map(whole),
        pci_bus_id: bus_id(place),
        pcie_root: root(place),
        numa_node: numa(place),
    }
}

fn bus_id(place: Option<&Place>) -> String {
    place.map(|place| cut(&place.address.to_string(), MAX_ADDRESS)).unwrap_or_default()
}

fn root(place: Option<&Place>) -> String {
    cut(place.and_then(|place| place.root.as_deref()).unwrap_or_default(), MAX_ADDRESS)
}

fn numa(place: Option<&Place>) -> Option<i64> {
    place.and_then(|place| place.numa).map(i64::from)
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// By characters, as the API server counts.
fn cut(text: &str, longest: usize) -> String {
    text.chars().take(longest).collect()
}
