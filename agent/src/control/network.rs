//! Which network a worker may use, and what the status says about it. Decided by an allow-list with one entry, so what
//! is reported is what was used, not a guess. Pure.

use nixl_transfer_crds::{
    Reason, Require,
    task::{TransferTaskSpec, status::TransportUsed},
};

use crate::protocol::{Failure, Network};

/// The only transport between nodes that workers use today.
const TCP: &str = "tcp";

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
    Ok(Network { transports: vec![TCP.into()], devices: devices.to_vec() })
}

/// What stands in the status.
pub fn used(network: &Network) -> TransportUsed {
    TransportUsed {
        backend: "UCX".into(),
        network: network.transports.join(","),
        devices: network.devices.iter().take(MAX_DEVICES_SHOWN).cloned().collect(),
        direction: Some("Write".into()),
        fan_out: None,
        fallback_reason: Some(Reason::NoRdmaDevice.as_str().into()),
    }
}
