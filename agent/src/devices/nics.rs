//! The NICs of this node: ports of RDMA devices from `class/infiniband`, and Ethernet interfaces of hardware that has no RDMA
//! from `class/net`. Reads sysfs.

mod netdevs;
mod text;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use nixl_transfer_crds::node::devices::LinkState;

use super::{
    pci::{self, Address, Place},
    sysfs::Sysfs,
};
use netdevs::Netdev;

const RDMA: &str = "class/infiniband";
/// `port_xmit_data` counts in words of four bytes.
const WORD: u64 = 4;

/// A port of an RDMA device, or an Ethernet interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Name of the RDMA device, or of the interface.
    pub name: String,
    /// The port of the RDMA device; `None` without RDMA.
    pub port: Option<u32>,
    /// The interface over the same link.
    pub netdev: Option<String>,
    /// State of the link.
    pub state: LinkState,
    /// `InfiniBand`, `Ethernet`, or another word of the kernel.
    pub link_layer: String,
    /// Mb/s, of an active link whose rate the kernel knows.
    pub rate: Option<u64>,
    /// The PCI function that carries it.
    pub place: Option<Place>,
    /// Bytes that the RDMA port has sent. For an Ethernet link without those of the interface.
    pub rdma_sent: Option<u64>,
    /// Bytes that the interface has sent; unknown for InfiniBand, where the port counts them too.
    pub netdev_sent: Option<u64>,
}

/// All NICs: RDMA first, then the others, each by name and port.
pub(super) fn nics(sysfs: &Sysfs<'_>) -> Vec<Nic> {
    let netdevs = netdevs::netdevs(sysfs);
    let mut nics = Vec::new();
    // Interfaces that an RDMA device of the hardware stands for. Software RDMA (rxe, siw) borrows one and hides none.
    let mut taken = BTreeSet::new();
    for name in sysfs.names(RDMA.as_ref()) {
        let Some(device) = sysfs.link(&Path::new(RDMA).join(&name)) else { continue };
        let address = pci::carrier(&device);
        let mut ports: Vec<u32> =
            sysfs.names(&device.join("ports")).iter().filter_map(|port| port.parse().ok()).collect();
        ports.sort_unstable();
        for number in ports {
            let port = Port { sysfs, device: &device, name: &name, address, number, netdevs: &netdevs };
            let (nic, shares) = port.read();
            nics.push(nic);
            if address.is_some() {
                taken.extend(shares);
            }
        }
    }
    let others =
        netdevs.iter().filter(|netdev| netdev.is_hardware_ethernet() && !taken.contains(&netdev.name));
    nics.extend(others.map(|netdev| ethernet(sysfs, netdev)));
    nics
}

fn ethernet(sysfs: &Sysfs<'_>, netdev: &Netdev) -> Nic {
    Nic {
        name: netdev.name.clone(),
        port: None,
        netdev: Some(netdev.name.clone()),
        state: netdev.state(sysfs),
        link_layer: "Ethernet".into(),
        rate: netdev.speed(sysfs),
        place: netdev.address.and_then(|address| Place::read(sysfs, address)),
        rdma_sent: None,
        netdev_sent: netdev.sent(sysfs),
    }
}

/// A port that is to be read.
struct Port<'a> {
    sysfs: &'a Sysfs<'a>,
    device: &'a Path,
    name: &'a str,
    address: Option<Address>,
    number: u32,
    netdevs: &'a [Netdev],
}

impl Port<'_> {
    /// The port, and the interfaces that share its link.
    fn read(&self) -> (Nic, Vec<String>) {
        let text = |file: &str| self.sysfs.text(&self.path(file)).unwrap_or_default();
        let state = text::port_state(&text("state"));
        let link_layer = text("link_layer");
        let shares = self.shares();
        let netdev = shares.first().cloned();
        // On InfiniBand what the interface sends is in the port's count already.
        let counted = self.netdevs.iter().find(|known| {
            link_layer == "Ethernet" && self.address.is_some() && Some(&known.name) == netdev.as_ref()
        });
        let nic = Nic {
            name: self.name.to_owned(),
            port: Some(self.number),
            state,
            // A port that is down names the slowest rate it can have.
            rate: text::rate(&text("rate")).filter(|_| state == LinkState::Active),
            place: self.address.and_then(|address| Place::read(self.sysfs, address)),
            rdma_sent: self
                .sysfs
                .number::<u64>(&self.path("counters/port_xmit_data"))
                .and_then(|words| words.checked_mul(WORD)),
            netdev_sent: counted.and_then(|netdev| netdev.sent(self.sysfs)),
            link_layer,
            netdev,
        };
        (nic, shares)
    }

    /// The interfaces over this port's link: those of its GIDs; InfiniBand has none there, so the one of the same PCI
    /// function and port, if it is the only one.
    fn shares(&self) -> Vec<String> {
        let ndevs = self.path("gid_attrs/ndevs");
        let mut indices: Vec<u32> =
            self.sysfs.names(&ndevs).iter().filter_map(|index| index.parse().ok()).collect();
        indices.sort_unstable();
        let mut names = Vec::new();
        for index in indices {
            // Unused indices cannot be read.
            let Some(name) = self.sysfs.text(&ndevs.join(index.to_string())) else { continue };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if names.is_empty() {
            let mut same = self.netdevs.iter().filter(|netdev| {
                self.address.is_some()
                    && netdev.address == self.address
                    && netdev.dev_port.checked_add(1) == Some(self.number)
                    && !netdev.represents
            });
            if let (Some(netdev), None) = (same.next(), same.next()) {
                names.push(netdev.name.clone());
            }
        }
        names
    }

    fn path(&self, file: &str) -> PathBuf {
        self.device.join("ports").join(self.number.to_string()).join(file)
    }
}
