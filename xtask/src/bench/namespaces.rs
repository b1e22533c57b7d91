//! Network namespaces as nodes: each has one device for data on a common bridge, both of whose directions may be shaped,
//! and one for control on another bridge, never shaped. The bridges stand in a namespace of their own, the hub, where the
//! control plane runs too: the namespaces of this machine are not touched, and all are gone when their owner is. Needs root.

mod space;

use anyhow::Result;

pub use space::Space;

use crate::exec;

/// The name, on every node, of the device for data.
pub const DEVICE: &str = "bench0";
/// That for control: no data goes there.
const CONTROL: &str = "control0";
/// The hub's address on the network for control.
const HUB: &str = "10.78.0.254";
/// Node numbers are the last part of addresses.
const MOST: usize = 200;

/// How fast the devices for data are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// As the machine can.
    Free,
    /// 1 Gbit/s each way, at both ends of each device.
    Gigabit,
}

#[derive(Debug)]
pub struct Namespaces {
    // Dropped first: devices go with either end.
    nodes: Vec<Space>,
    hub: Space,
}

impl Namespaces {
    /// Why there can be none, if so.
    pub fn possible() -> Result<(), String> {
        let tried = exec::output("unshare", &["--net", "--mount", "true"])
            .and_then(|_| exec::output("ip", &["-V"]))
            .and_then(|_| exec::output("tc", &["-V"]))
            .and_then(|_| exec::output("setpriv", &["--pdeathsig", "KILL", "true"]));
        tried.map(drop).map_err(|error| format!("{error:#}"))
    }

    pub fn start(count: usize, speed: Speed) -> Result<Self> {
        assert!(count <= MOST, "addresses end at {MOST}");
        let hub = Space::start()?;
        let nodes = (0..count).map(|_| Space::start()).collect::<Result<Vec<_>>>()?;
        let spaces = Self { nodes, hub };
        for space in spaces.nodes.iter().chain([&spaces.hub]) {
            space.wait_made()?;
            space.run("ip", &["link", "set", "lo", "up"])?;
        }
        for bridge in ["data", "control"] {
            spaces.hub.run("ip", &["link", "add", bridge, "type", "bridge"])?;
            spaces.hub.run("ip", &["link", "set", bridge, "up"])?;
        }
        spaces.hub.run("ip", &["address", "add", &format!("{HUB}/24"), "dev", "control"])?;
        for at in 0..count {
            spaces.join(at, "data", DEVICE, &spaces.address(at), speed)?;
            spaces.join(at, "control", CONTROL, &spaces.control_address(at), Speed::Free)?;
        }
        for node in &spaces.nodes {
            node.wait_up(DEVICE)?;
            node.wait_up(CONTROL)?;
        }
        Ok(spaces)
    }

    /// A device on a node with an address, its other end on a bridge of the hub.
    fn join(&self, at: usize, bridge: &str, device: &str, address: &str, speed: Speed) -> Result<()> {
        let (node, port) = (&self.nodes[at], format!("{bridge}{at}"));
        let [one, other] = [node, &self.hub].map(|space| space.holder().to_string());
        exec::output(
            "ip",
            &["link", "add", device, "netns", &one, "type", "veth", "peer", "name", &port, "netns", &other],
        )?;
        if speed == Speed::Gigabit {
            // What leaves the node, and what leaves the bridge for the node.
            node.run("tc", &shaped(device))?;
            self.hub.run("tc", &shaped(&port))?;
        }
        self.hub.run("ip", &["link", "set", &port, "master", bridge, "up"])?;
        node.run("ip", &["address", "add", &format!("{address}/24"), "dev", device])?;
        node.run("ip", &["link", "set", device, "up"])
    }

    pub fn nodes(&self) -> &[Space] {
        &self.nodes
    }

    /// Where the control plane runs.
    pub fn hub(&self) -> &Space {
        &self.hub
    }

    /// A node's address for data.
    pub fn address(&self, at: usize) -> String {
        format!("10.77.0.{}", at + 1)
    }

    /// A node's address for control.
    pub fn control_address(&self, at: usize) -> String {
        format!("10.78.0.{}", at + 1)
    }

    /// The hub's address, for every node.
    pub fn hub_address(&self) -> &'static str {
        HUB
    }
}

/// A bucket of some segments of 64 KiB, and a queue of some milliseconds: a sender that fills it waits, nothing is lost.
fn shaped(device: &str) -> [&str; 12] {
    ["qdisc", "add", "dev", device, "root", "tbf", "rate", "1gbit", "burst", "256kb", "limit", "4mb"]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn nodes_reach_each_other_by_the_device_for_data_and_the_hub_where_they_are_possible() {
        if let Err(why) = Namespaces::possible() {
            eprintln!("not shown here: {why}");
            return;
        }
        let spaces = Namespaces::start(3, Speed::Gigabit).unwrap();
        let output = |space: &Space, program: &str, arguments: &[&str]| {
            let output = space.command(program).args(arguments).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        for (at, node) in spaces.nodes().iter().enumerate() {
            for other in (0..3).filter(|other| *other != at).map(|other| spaces.address(other)) {
                assert!(output(node, "ip", &["route", "get", &other]).contains(DEVICE));
            }
            assert!(output(node, "ip", &["route", "get", spaces.hub_address()]).contains(CONTROL));
            // At each of two ends, and not for control.
            assert!(output(node, "tc", &["qdisc", "show", "dev", DEVICE]).contains("tbf"));
            assert!(!output(node, "tc", &["qdisc", "show", "dev", CONTROL]).contains("tbf"));
        }
        assert_eq!(output(spaces.hub(), "tc", &["qdisc", "show"]).matches("tbf").count(), 3);
        // Whoever is there refuses at once what nobody listens for.
        let refuses = |at: &str| {
            let script = format!("exec 3<>/dev/tcp/{at}/9");
            let output = spaces.nodes()[0].command("bash").args(["-c", &script]).output().unwrap();
            String::from_utf8_lossy(&output.stderr).contains("refused")
        };
        assert!(refuses(&spaces.address(2)) && refuses(spaces.hub_address()) && refuses("127.0.0.1"));
        assert!(spaces.nodes()[0].sent_by(DEVICE).unwrap() > 0);
        let holder = spaces.nodes()[0].holder();
        drop(spaces);
        assert!(!Path::new(&format!("/proc/{holder}")).exists());
    }
}
