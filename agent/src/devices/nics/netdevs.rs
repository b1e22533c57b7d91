//! Network interfaces from `class/net`: all that have hardware behind them. Reads sysfs. A pod without hostNetwork sees its
//! own namespace's only.

use std::path::{Path, PathBuf};

use nixl_transfer_crds::node::devices::LinkState;

use super::{
    super::{
        pci::{self, Address},
        sysfs::Sysfs,
    },
    text,
};

const NET: &str = "class/net";
/// ARPHRD_ETHER; InfiniBand is 32, the loopback 772.
const ETHERNET: u32 = 1;

/// An interface with a device behind it.
pub(super) struct Netdev {
    pub(super) name: String,
    /// The PCI function that carries it; a virtio device is in between, or a USB bus.
    pub(super) address: Option<Address>,
    /// Port on that function, from 0.
    pub(super) dev_port: u32,
    /// It stands for a virtual function or subfunction on the host's side of a switch in the card; many share one function.
    pub(super) represents: bool,
    kind: Option<u32>,
    wireless: bool,
    path: PathBuf,
}

/// All of them, sorted by name. Bonds, bridges, VLANs and the like are virtual and have no `device`.
pub(super) fn netdevs(sysfs: &Sysfs<'_>) -> Vec<Netdev> {
    let netdev = |name: String| {
        // Not every entry is a link: `bonding_masters` is a file.
        let path = sysfs.link(&Path::new(NET).join(&name))?;
        let device = sysfs.link(&path.join("device"))?;
        if path.starts_with("devices/virtual") {
            return None;
        }
        Some(Netdev {
            name,
            address: pci::carrier(&device),
            dev_port: sysfs.number(&path.join("dev_port")).unwrap_or(0),
            represents: sysfs.text(&path.join("phys_port_name")).is_some_and(|port| is_representor(&port)),
            kind: sysfs.number(&path.join("type")),
            wireless: sysfs.exists(&path.join("phy80211")),
            path,
        })
    };
    sysfs.names(NET.as_ref()).into_iter().filter_map(netdev).collect()
}

/// `pf0vf1`, `c1pf0sf3`; the uplink is `p0`.
fn is_representor(phys_port_name: &str) -> bool {
    phys_port_name.contains("vf") || phys_port_name.contains("sf")
}

impl Netdev {
    pub(super) fn is_hardware_ethernet(&self) -> bool {
        self.kind == Some(ETHERNET) && !self.wireless && !self.represents
    }

    pub(super) fn state(&self, sysfs: &Sysfs<'_>) -> LinkState {
        text::operstate(&sysfs.text(&self.path.join("operstate")).unwrap_or_default())
    }

    /// Mb/s. Reading it fails for an interface that is down, and gives -1 for one that does not know.
    pub(super) fn speed(&self, sysfs: &Sysfs<'_>) -> Option<u64> {
        text::speed(&sysfs.text(&self.path.join("speed"))?)
    }

    pub(super) fn sent(&self, sysfs: &Sysfs<'_>) -> Option<u64> {
        sysfs.number(&self.path.join("statistics/tx_bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn representors_by_their_port() {
        for (port, expected) in
            [("p0", false), ("p1", false), ("pf0", false), ("pf0vf1", true), ("c1pf0sf88", true)]
        {
            assert_eq!(is_representor(port), expected, "{port}");
        }
    }
}
