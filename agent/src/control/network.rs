//! Which network a worker may use, and what the status says about it. Decided by an allow-list, so what is reported is what
//! was used, not a guess: between nodes it has one entry, and within a node UCX takes the shared memory. Pure.

use nixl_transfer_crds::{
    Reason, Require,
    task::{TransferTaskSpec, status::TransportUsed},
};

use crate::protocol::{Failure, Network};

/// The only transport between nodes that workers use today.
const TCP: &str = "tcp";
/// Within a node also shared memory, which carries the bytes there. UCX cannot do without another transport beside it: it
/// has no way to notice over shared memory alone that the other process is gone.
const SHARED_MEMORY: &str = "sm";

/// As many as a status may hold: a host with hundreds of virtual interfaces must be able to report at all.
const MAX_DEVICES_SHOWN: usize = 16;

/// The network for a hop, or why there is none.
pub fn network(spec: &TransferTaskSpec, devices: &[String]) -> Result<Network, Failure> {
    if spec.transport.require == Require::Rdma {
        return Err(Failure::new(
            Reason::BackendUnavailable,
            "spec.transport.require is Rdma, but this agent moves data over TCP only; set it to Any, or use an agent \
             that drives RDMA devices",
        ));
    }
    let mut transports = vec![TCP.to_owned()];
    if spec.source.node_name == spec.target.node_name {
        transports.push(SHARED_MEMORY.to_owned());
    }
    Ok(Network { transports, devices: devices.to_vec() })
}

impl Network {
    /// The same, and shared memory for a workload of this node.
    pub fn within_node_too(mut self) -> Self {
        if !self.transports.iter().any(|transport| transport == SHARED_MEMORY) {
            self.transports.push(SHARED_MEMORY.to_owned());
        }
        self
    }
}

/// What stands in the status: how the two ends of the hop reach each other.
pub fn used(spec: &TransferTaskSpec, network: &Network) -> TransportUsed {
    let within_node = spec.source.node_name == spec.target.node_name;
    TransportUsed {
        backend: "UCX".into(),
        network: if within_node { SHARED_MEMORY } else { TCP }.into(),
        devices: network.devices.iter().take(MAX_DEVICES_SHOWN).cloned().collect(),
        direction: Some("Write".into()),
        fan_out: None,
        fallback_reason: (!within_node).then(|| Reason::NoRdmaDevice.as_str().into()),
    }
}
