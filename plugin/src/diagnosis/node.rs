//! One node: its facts for the table, and what is wrong with it. Pure.

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use nixl_transfer_crds::{
    Reason, TransferNode, Transport,
    condition::{self, READY},
    node::{
        RDMA_QUEUES, TransferNodeStatus, VolumeStatus,
        devices::{LinkState, NicStatus},
    },
};
use serde::Serialize;

use super::{Finding, Grade, Seen, is_gone};
use crate::render::span_of;

/// A volume with less than this part of its capacity is nearly full.
const NEARLY_FULL: i64 = 20;
/// What an agent says before what it cannot do.
const BUT: &str = "ready, but ";

/// What the table shows of a node.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Whether its agent takes transfers, as far as can be seen.
    pub ready: bool,
    /// Versions of agent and NIXL.
    pub agent_version: String,
    /// The latter.
    pub nixl_version: String,
    /// NIXL's backends, with the kinds of memory.
    pub backends: Vec<String>,
    /// Whether RDMA can be used to and from it.
    pub rdma: bool,
    /// Rate of its fastest link of that kind, in Mb/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<i64>,
    /// Bytes that a worker may lock; absent for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memlock: Option<i64>,
    /// Bytes of staging memory.
    pub staging: i64,
    /// Hops at once.
    pub slots: i64,
    /// Number of GPUs.
    pub gpus: usize,
    /// Names of its volumes that the namespace may use, with `:ro` behind those that can only be read.
    pub volumes: Vec<String>,
}

impl NodeFacts {
    pub(super) fn of(node: &TransferNode, seen: &Seen, now: Timestamp) -> Self {
        let status = node.status.clone().unwrap_or_default();
        let name = node.metadata.name.clone().unwrap_or_default();
        let backend = |it: &nixl_transfer_crds::node::BackendStatus| {
            if it.memory_types.is_empty() {
                it.name.clone()
            } else {
                format!("{} ({})", it.name, it.memory_types.join(" "))
            }
        };
        let rdma = shortfall(&status).is_none();
        let usable = |nic: &&NicStatus| nic.state == LinkState::Active && (!rdma || is_rdma(nic));
        let volume = |it: &VolumeStatus| {
            if it.read_only { format!("{}:ro", it.name) } else { it.name.clone() }
        };
        Self {
            ready: condition::is_true(&status.conditions, READY) && dead_since(&name, seen, now).is_none(),
            backends: status.backends.iter().map(backend).collect(),
            rdma,
            link: status.nics.iter().filter(usable).filter_map(|nic| nic.rate).max(),
            memlock: status.memlock,
            staging: status.staging.map_or(0, |staging| staging.total),
            slots: status.slots.map_or(0, |slots| slots.total),
            gpus: status.gpus.len(),
            volumes: status.volumes.iter().filter(|it| it.allows(&seen.namespace)).map(volume).collect(),
            agent_version: status.agent_version,
            nixl_version: status.nixl_version,
            name,
        }
    }
}

/// Ports of RDMA devices. Those of software have no place on PCI, and agents do not use them.
fn is_rdma(nic: &NicStatus) -> bool {
    nic.port.is_some() && !nic.pci_bus_id.is_empty()
}

/// What a worker registers for one hop with a job's defaults.
fn ring() -> i64 {
    let transport = Transport::default();
    let chunk = transport.chunk_size.bytes().ok().and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(0);
    chunk.saturating_mul(transport.in_flight.into())
}

/// Bytes that RDMA needs locked for so much registered memory.
fn locked(registered: i64) -> i64 {
    registered.saturating_add_unsigned(RDMA_QUEUES)
}

/// Why a job with the defaults would not use RDMA from this node; the order is that of the agents.
fn shortfall(status: &TransferNodeStatus) -> Option<Reason> {
    let ports: Vec<&NicStatus> = status.nics.iter().filter(|nic| is_rdma(nic)).collect();
    if ports.is_empty() {
        return Some(Reason::NoRdmaDevice);
    }
    if !ports.iter().any(|nic| nic.state == LinkState::Active) {
        return Some(Reason::LinkDown);
    }
    let slots = status.slots.map_or(1, |slots| slots.total.max(1));
    let staging = status.staging.map_or(i64::MAX, |staging| staging.total);
    let needed = locked(ring().saturating_mul(slots).min(staging.max(ring())));
    status.memlock.filter(|limit| *limit < needed).map(|_| Reason::MemlockTooSmall)
}

/// Since when its Lease was not renewed, if that is too long, and if it may be read.
fn dead_since(name: &str, seen: &Seen, now: Timestamp) -> Option<Option<Timestamp>> {
    match seen.leases.as_ref()?.get(name).copied().flatten() {
        Some(renewed) => is_gone(renewed, now).then_some(Some(renewed)),
        None => Some(None),
    }
}

/// What is wrong with the node.
pub(super) fn findings(node: &TransferNode, seen: &Seen, now: Timestamp) -> Vec<Finding> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    let mut found = Vec::new();
    if let Some(since) = dead_since(name, seen, now) {
        let since = since.map(|since| format!(" for {}", span_of(since, now))).unwrap_or_default();
        let text = format!("Its agent has not renewed its Lease{since}: look at its pod on that node.");
        return vec![Finding::because(Grade::Broken, Reason::AgentNotReady, text).on(name)];
    }
    match condition::find(&status.conditions, READY) {
        Some(ready) if ready.status == "True" => {
            let but = ready.message.strip_prefix(BUT);
            found.extend(but.map(|but| Finding::new(Grade::Poor, format!("Its agent works, but {but}."))));
        }
        Some(ready) => {
            let known = Reason::parse(&ready.reason).unwrap_or(Reason::AgentNotReady);
            let text = format!("{}. {}", ready.message, known.entry().remedy);
            return vec![Finding::because(Grade::Broken, known, text).on(name)];
        }
        None => return vec![Finding::explained(Grade::Broken, Reason::AgentNotReady).on(name)],
    }
    if node.spec.unschedulable {
        let text = "It is drained: no transfer begins from it or to it. Set `spec.unschedulable` of its TransferNode to false.";
        found.push(Finding::because(Grade::Poor, Reason::AgentNotReady, text));
    }
    if !status.backends.iter().any(|backend| backend.name == "UCX") {
        found.push(Finding::explained(Grade::Broken, Reason::BackendUnavailable));
    }
    found.extend(network(&status));
    found.extend(memory(&status));
    found.extend(volumes(&status, &seen.namespace));
    found.into_iter().map(|finding| finding.on(name)).collect()
}

fn network(status: &TransferNodeStatus) -> Option<Finding> {
    if let Some(reason) = shortfall(status) {
        return Some(Finding::explained(Grade::Poor, reason));
    }
    let staging = status.staging.map_or(0, |staging| staging.total);
    status.memlock.filter(|limit| *limit < locked(staging)).map(|_| {
        let text = "The limit for locked memory is enough for a job's defaults, but not for all staging memory at once: jobs \
                    with a larger `chunkSize` or `inFlight` go over TCP. Raise the container runtime's memlock limit.";
        Finding::because(Grade::Poor, Reason::MemlockTooSmall, text)
    })
}

fn memory(status: &TransferNodeStatus) -> Option<Finding> {
    let staging = status.staging.filter(|staging| staging.total < ring())?;
    let text = format!(
        "Its staging memory is {} bytes, and one hop takes {} with a job's defaults: raise `staging` in the agent's \
         configuration, or lower `spec.transport.chunkSize` or `inFlight` in jobs.",
        staging.total,
        ring()
    );
    Some(Finding::because(Grade::Broken, Reason::InsufficientStagingMemory, text))
}

fn volumes(status: &TransferNodeStatus, namespace: &str) -> Vec<Finding> {
    let usable: Vec<&VolumeStatus> = status.volumes.iter().filter(|it| it.allows(namespace)).collect();
    if usable.is_empty() {
        let (reason, text) = if status.volumes.is_empty() {
            (Reason::VolumeNotFound, "It publishes no volume; add one to the agent's configuration (`agent.volumes` of the chart).".to_owned())
        } else {
            let text = format!(
                "None of its volumes is published for namespace {namespace}; ask the administrator to add it to `allowedNamespaces`."
            );
            (Reason::VolumeForbidden, text)
        };
        return vec![Finding::because(Grade::Poor, reason, text)];
    }
    let full = usable.iter().filter(|it| !it.read_only && it.free < it.capacity / NEARLY_FULL);
    full.map(|it| {
        let text = format!("Its volume {} is nearly full. Free space on it.", it.name);
        Finding::because(Grade::Poor, Reason::InsufficientSpace, text)
    })
    .collect()
}
