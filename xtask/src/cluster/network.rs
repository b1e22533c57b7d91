//! The addresses of a cluster, and its wires: a bridge in the hub, a device on each node, one on this machine so that
//! kubectl reaches the API server. All of them go when the hub goes: this machine's network is only added to.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::record::Record;
use super::space::{SOON, Space, run_inside};
use crate::exec;

/// Node numbers are parts of addresses.
pub const MOST_NODES: usize = 200;
/// Of service addresses, which exist only as rules of kube-proxy's.
pub const SERVICES: &str = "10.96.0.0/16";
/// Where pods find the API server: the first of them.
pub const API_SERVICE: &str = "10.96.0.1";
pub const API_PORT: u16 = 6443;

/// `10.<network>.0.x` are hub, this machine and nodes; `10.<network>.<node>.x` are the pods of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub u8);

impl Network {
    /// One that this machine has no way to yet.
    pub fn free() -> Result<Self> {
        let routes = exec::output("ip", &["-4", "route", "show", "table", "all"])?;
        unused(&routes).context("all networks from 10.79.0.0/16 to 10.119.0.0/16 are in use on this machine")
    }

    pub fn hub(self) -> String {
        format!("10.{}.0.254", self.0)
    }

    /// This machine's.
    fn host(self) -> String {
        format!("10.{}.0.253", self.0)
    }

    pub fn node(self, at: usize) -> String {
        format!("10.{}.0.{}", self.0, at + 1)
    }

    pub fn pods(self, at: usize) -> String {
        format!("10.{}.{}.0/24", self.0, at + 1)
    }

    /// Nodes, pods and all.
    pub fn all(self) -> String {
        format!("10.{}.0.0/16", self.0)
    }

    pub fn api_server(self) -> String {
        format!("{}:{API_PORT}", self.hub())
    }
}

/// The device on this machine.
pub fn device(record: &Record) -> &str {
    &record.tag
}

/// Joins the spaces, of which the first is the hub.
pub fn join(record: &Record, spaces: &[Space]) -> Result<()> {
    let network = Network(record.network);
    let (hub, nodes) = spaces.split_first().context("a cluster without a hub")?;
    let in_hub = |arguments: &[&str]| run_inside(hub.pid(), "ip", arguments);
    let hub_pid = hub.pid().to_string();
    in_hub(&["link", "add", "nodes", "type", "bridge"])?;
    in_hub(&["address", "add", &format!("{}/24", network.hub()), "dev", "nodes"])?;
    in_hub(&["link", "set", "nodes", "up"])?;

    let device = device(record);
    ip(&["link", "add", device, "type", "veth", "peer", "name", "host", "netns", &hub_pid])?;
    in_hub(&["link", "set", "host", "master", "nodes", "up"])?;
    ip(&["address", "add", &format!("{}/24", network.host()), "dev", device])?;
    ip(&["link", "set", device, "up"])?;
    ip(&["route", "add", &network.all(), "via", &network.hub()])?;

    for (at, node) in nodes.iter().enumerate() {
        let (node_pid, port) = (node.pid().to_string(), format!("node{at}"));
        let wire = ["type", "veth", "peer", "name", &port, "netns", &hub_pid];
        ip(&[&["link", "add", "eth0", "netns", &node_pid][..], &wire].concat())?;
        in_hub(&["link", "set", &port, "master", "nodes", "up"])?;
        let in_node = |arguments: &[&str]| run_inside(node.pid(), "ip", arguments);
        in_node(&["address", "add", &format!("{}/24", network.node(at)), "dev", "eth0"])?;
        in_node(&["link", "set", "eth0", "up"])?;
        in_node(&["route", "add", "default", "via", &network.hub()])?;
    }
    for at in 0..nodes.len() {
        let way = ["route", "add", &network.pods(at), "via", &network.node(at)];
        in_hub(&way)?;
        for (_, other) in nodes.iter().enumerate().filter(|(other, _)| *other != at) {
            run_inside(other.pid(), "ip", &way)?;
        }
    }
    Ok(())
}

/// On this machine.
fn ip(arguments: &[&str]) -> Result<()> {
    exec::watched_within(Command::new("ip").args(arguments), SOON, |_| {})
}

/// The device would go with the hub's network, which the kernel removes some time after the last process in it.
pub fn remove(record: &Record) -> Result<()> {
    let device = device(record);
    let is_left = || Path::new("/sys/class/net").join(device).exists();
    if !is_left() {
        return Ok(());
    }
    // It may go by itself in this moment, which is no error.
    ip(&["link", "delete", device]).or_else(|error| if is_left() { Err(error) } else { Ok(()) })
}

fn unused(routes: &str) -> Option<Network> {
    let taken = |second: u8| routes.split_whitespace().any(|word| word.starts_with(&format!("10.{second}.")));
    (79..120).find(|second| *second != 96 && !taken(*second)).map(Network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_in_use_is_not_taken() {
        assert_eq!(unused("default via 192.168.0.1 dev eth0"), Some(Network(79)));
        let routes =
            "10.79.0.0/24 dev x proto kernel scope link src 10.79.0.253\n10.8.0.0/16 via 10.80.0.1 dev y";
        assert_eq!(unused(routes), Some(Network(81)));
        let all: String = (0..=255).map(|second| format!("10.{second}.0.0/16 dev x\n")).collect();
        assert_eq!(unused(&all), None);
    }

    #[test]
    fn addresses_of_nodes_hub_and_pods_do_not_meet() {
        let network = Network(80);
        assert_eq!(
            (network.node(0), network.node(MOST_NODES - 1)),
            ("10.80.0.1".into(), "10.80.0.200".into())
        );
        assert_eq!((network.hub(), network.pods(1)), ("10.80.0.254".into(), "10.80.2.0/24".into()));
    }
}
