//! Which network a worker may use, and what the status says about the one that it used. Pure. Between nodes: the node's RDMA
//! ports and TCP beside them, or TCP alone and the reason. Within a node: shared memory.
//!
//! No machine with an RDMA port has ever run this. What it decides for such ports follows UCX' documentation and is shown
//! by tables over trees of sysfs from public listings; what is really used is read back (`used`), whatever was decided.

mod ports;
#[cfg(test)]
mod tests;
mod used;

use nixl_transfer_crds::{Reason, Require, task::TransferTaskSpec};

use crate::{
    devices::{Devices, Place},
    protocol::{Failure, Network},
};
use ports::Ports;

/// Between nodes.
const TCP: &str = "tcp";
/// UCX' name for its reliable connections over RDMA, by whichever driver; it brings along what it needs to set them up.
const RDMA: &str = "rc";
/// Within a node also shared memory, which carries the bytes there. UCX cannot do without another transport beside it: it
/// has no way to notice over shared memory alone that the other process is gone.
const SHARED_MEMORY: &str = "sm";

/// As many devices as are named to UCX, and as a status may hold. UCX sends over those that it finds best, by default two.
const MAX_DEVICES: usize = 16;

/// What this node has for a hop.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// Its name, for messages.
    pub node: &'a str,
    /// Interfaces that data may use.
    pub interfaces: &'a [String],
    /// Whether an administrator has named them: RDMA ports are then those that are named too, or lie under one that is.
    pub named: bool,
    /// What sysfs shows.
    pub devices: &'a Devices,
    /// Bytes that a worker may lock; `None` for no limit.
    pub memlock: Option<u64>,
    /// Bytes that the worker may have to register.
    pub registers: u64,
    /// The GPU whose memory it is; `None` for files and host memory.
    pub gpu: Option<&'a Place>,
}

/// The best that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Best {
    /// Shared memory.
    Memory,
    /// RDMA.
    Rdma,
    /// TCP.
    Tcp,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What the worker is given.
    pub network: Network,
    /// The best of that.
    pub best: Best,
    /// What keeps this node from RDMA, where that would be better.
    pub shortfall: Option<Shortfall>,
    node: String,
    require: Require,
}

/// Why a node has no RDMA to offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// A fallback reason.
    pub reason: Reason,
    /// What is missing where, and what to do.
    pub message: String,
}

/// The network for a hop.
///
/// # Errors
/// `BackendUnavailable` when the job requires RDMA and this node has none.
pub fn choose(spec: &TransferTaskSpec, here: &Here<'_>) -> Result<Choice, Failure> {
    let require = spec.transport.require;
    let choice = |transports: &[&str], devices: Vec<String>, cpus, best, shortfall| Choice {
        network: Network {
            transports: transports.iter().map(|name| (*name).to_owned()).collect(),
            devices,
            cpus,
        },
        best,
        shortfall,
        node: here.node.to_owned(),
        require,
    };
    let interfaces = ports::interfaces(here);
    if spec.source.node_name == spec.target.node_name {
        // The bytes do not go over TCP, which is all that `Rdma` forbids; that they did not is read back.
        return Ok(choice(&[TCP, SHARED_MEMORY], interfaces, Vec::new(), Best::Memory, None));
    }
    match (ports::usable(here), require) {
        (Ok(ports), Require::Any) => {
            let Ports { mut names, cpus } = ports;
            names.truncate(MAX_DEVICES);
            names.extend(interfaces);
            Ok(choice(&[RDMA, TCP], names, cpus, Best::Rdma, None))
        }
        (Ok(ports), Require::Rdma) => {
            let Ports { mut names, cpus } = ports;
            names.truncate(MAX_DEVICES);
            Ok(choice(&[RDMA], names, cpus, Best::Rdma, None))
        }
        (Err(shortfall), Require::Any) => {
            Ok(choice(&[TCP], interfaces, Vec::new(), Best::Tcp, Some(shortfall)))
        }
        (Err(shortfall), Require::Rdma) => Err(unavailable(&format!("{shortfall}"))),
    }
}

impl Choice {
    /// The same, and shared memory for a workload of this node that exposes its memory by itself.
    pub fn within_node_too(mut self) -> Self {
        let transports = &mut self.network.transports;
        if !transports.iter().any(|transport| transport == SHARED_MEMORY) {
            transports.push(SHARED_MEMORY.to_owned());
        }
        self
    }
}

/// RDMA is required, and is not there.
fn unavailable(why: &str) -> Failure {
    let message = format!("spec.transport.require is Rdma, but {why}; or set spec.transport.require to Any");
    Failure::new(Reason::BackendUnavailable, message)
}

impl std::fmt::Display for Shortfall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}
