//! The RDMA ports that a worker may use, in order, or what keeps it from all of them. Pure.

use std::cmp::Reverse;

use nixl_transfer_crds::{
    Reason,
    node::{RDMA_QUEUES, devices::LinkState},
};

use super::{Here, Shortfall};
use crate::devices::{Devices, Nic, nearest};

/// Ports, and where a worker that uses them runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ports {
    /// As UCX names them, the best first.
    pub(super) names: Vec<String>,
    /// Processors near them; empty if they are everywhere, or nobody tells.
    pub(super) cpus: Vec<u32>,
}

/// Interfaces for TCP: what is configured, without the names of RDMA devices.
pub(super) fn interfaces(here: &Here<'_>) -> Vec<String> {
    let is_rdma = |name: &String| rdma(here.devices).any(|nic| nic.name == *name);
    here.interfaces.iter().filter(|name| !is_rdma(name)).cloned().collect()
}

/// Ports of RDMA devices. Those of software (rxe, siw) are no better than TCP, and have no place on PCI.
fn rdma(devices: &Devices) -> impl Iterator<Item = &Nic> {
    devices.nics.iter().filter(|nic| nic.port.is_some() && nic.place.is_some())
}

/// The ports to use.
pub(super) fn usable(here: &Here<'_>) -> Result<Ports, Shortfall> {
    let node = here.node;
    let missing = |reason, message| Err(Shortfall { reason, message });
    let all: Vec<&Nic> = rdma(here.devices).collect();
    if all.is_empty() {
        let message = format!("node {node} has no RDMA device; give it one, or load its driver");
        return missing(Reason::NoRdmaDevice, message);
    }
    let named = |nic: &&Nic| {
        let is_named = |name: &String| *name == nic.name || Some(name) == nic.netdev.as_ref();
        !here.named || here.interfaces.iter().any(is_named)
    };
    let allowed: Vec<&Nic> = all.iter().copied().filter(named).collect();
    if allowed.is_empty() {
        let message = format!(
            "network.devices of the agent on node {node} names no RDMA device, nor an interface over one; it has {}",
            list(&all)
        );
        return missing(Reason::NoRdmaDevice, message);
    }
    let active: Vec<&Nic> = allowed.iter().copied().filter(|nic| nic.state == LinkState::Active).collect();
    if active.is_empty() {
        let message = format!("no RDMA port of node {node} is active: {}; repair the link", list(&allowed));
        return missing(Reason::LinkDown, message);
    }
    let needed = here.registers.saturating_add(RDMA_QUEUES);
    if let Some(limit) = here.memlock.filter(|limit| *limit < needed) {
        let message = format!(
            "workers on node {node} may lock {limit} bytes of memory, and RDMA may need {needed}; raise the memlock \
             limit of the container runtime, or give the launcher's container IPC_LOCK"
        );
        return missing(Reason::MemlockTooSmall, message);
    }
    let order = ordered(here, &active);
    let cpus = cpus(here, &order);
    Ok(Ports { names: order.into_iter().map(ucx_name).collect(), cpus })
}

/// For a GPU the nearest first; else the fastest.
fn ordered<'a>(here: &Here<'_>, active: &[&'a Nic]) -> Vec<&'a Nic> {
    let mut order = active.to_vec();
    order.sort_by_key(|nic| (Reverse(nic.rate), &nic.name, nic.port));
    if let Some(gpu) = here.gpu {
        let owned: Vec<Nic> = active.iter().map(|nic| (*nic).clone()).collect();
        let names = nearest(gpu, &owned);
        order.sort_by_key(|nic| names.iter().position(|name| *name == nic.name));
    }
    order
}

/// The processors of the GPU's NUMA node, or else of the one that all ports share, on a machine that has several.
fn cpus(here: &Here<'_>, ports: &[&Nic]) -> Vec<u32> {
    let numa = |nic: &&Nic| nic.place.as_ref().and_then(|place| place.numa);
    let wanted = match here.gpu {
        Some(gpu) => gpu.numa,
        None => ports.first().and_then(numa).filter(|node| ports.iter().all(|nic| numa(nic) == Some(*node))),
    };
    let several = here.devices.numa.len() > 1;
    let node = here.devices.numa.iter().find(|node| several && Some(node.number) == wanted);
    node.map(|node| node.cpus.clone()).unwrap_or_default()
}

fn ucx_name(nic: &Nic) -> String {
    format!("{}:{}", nic.name, nic.port.unwrap_or(1))
}

/// Ports and their states, for a message.
fn list(nics: &[&Nic]) -> String {
    const MOST: usize = 8;
    let mut words: Vec<String> =
        nics.iter().take(MOST).map(|nic| format!("{} is {}", ucx_name(nic), nic.state.as_str())).collect();
    if nics.len() > MOST {
        words.push(format!("and {} more", nics.len() - MOST));
    }
    words.join(", ")
}
