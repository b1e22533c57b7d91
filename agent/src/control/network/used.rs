//! From what UCX says that it uses to what stands in the status, and whether that is what the job allows. Pure. What a worker
//! says is not trusted to fit.

use nixl_transfer_crds::{Reason, Require, task::status::TransportUsed};

use super::{Best, Choice, MAX_DEVICES, RDMA, SHARED_MEMORY, TCP, unavailable};
use crate::protocol::{Failure, Used};

/// Stands where several networks were allowed and UCX has not said which it uses.
const UNKNOWN: &str = "unknown";
/// Longest texts that the API server takes.
const MAX_NETWORK: usize = 64;
const MAX_DEVICE: usize = 64;
/// UCX' transports over RDMA, by the beginnings of their names.
const OVER_RDMA: [&str; 5] = [RDMA, "dc", "ud", "gga", "srd"];
/// Those within a node.
const WITHIN: [&str; 6] = ["cma", "sysv", "posix", "xpmem", "knem", SHARED_MEMORY];

impl Choice {
    /// What stands in the status.
    ///
    /// # Errors
    /// `BackendUnavailable` when the job requires RDMA and bytes go over TCP.
    pub fn used(&self, used: &Used) -> Result<TransportUsed, Failure> {
        let networks = networks(&used.transports);
        let over_tcp = networks.iter().any(|network| network == TCP);
        if self.require == Require::Rdma && over_tcp {
            return Err(unavailable(&format!(
                "UCX on node {} moves the data over TCP; look at the agent's log for what it says",
                self.node
            )));
        }
        let network = match (&networks[..], &self.network.transports[..]) {
            // One that is allowed alone is the one.
            ([], [only]) => only.clone(),
            ([], _) => UNKNOWN.to_owned(),
            (networks, _) => cut(&networks.join(","), MAX_NETWORK),
        };
        let best_is_used = match self.best {
            Best::Tcp => true,
            Best::Memory => networks.iter().any(|network| network == SHARED_MEMORY),
            Best::Rdma => networks.iter().any(|network| is_rdma(network)),
        };
        let fallback = match &self.shortfall {
            Some(shortfall) => Some(shortfall.reason),
            // The other side has not got it, or UCX cannot use it here.
            None if !networks.is_empty() && !best_is_used => Some(Reason::NoCommonBackend),
            None => None,
        };
        let devices = used.devices.iter().take(MAX_DEVICES).map(|device| cut(device, MAX_DEVICE));
        Ok(TransportUsed {
            backend: "UCX".into(),
            network,
            devices: devices.collect(),
            direction: Some("Write".into()),
            staged: Vec::new(),
            fan_out: None,
            fallback_reason: fallback.map(|reason| reason.as_str().into()),
        })
    }
}

/// The kinds of network: without the drivers by which UCX tells its transports apart.
fn networks(transports: &[String]) -> Vec<String> {
    let mut networks: Vec<String> = Vec::new();
    for transport in transports {
        let kind = if WITHIN.contains(&transport.as_str()) {
            SHARED_MEMORY
        } else {
            transport.split('_').next().filter(|kind| is_rdma(kind)).unwrap_or(transport)
        };
        if !kind.is_empty() && !networks.iter().any(|network| network == kind) {
            networks.push(kind.to_owned());
        }
    }
    networks
}

fn is_rdma(kind: &str) -> bool {
    OVER_RDMA.contains(&kind)
}

/// By characters, as the API server counts.
fn cut(text: &str, longest: usize) -> String {
    text.chars().take(longest).collect()
}
