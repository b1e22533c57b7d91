//! How far two PCI functions are from each other, and the order of NICs for a GPU. Pure.
//!
//! Levels, not counts of bridges: the NIC that belongs to a GPU is several bridges away in some machines, for the switches
//! have layers.

use std::cmp::Reverse;

use nixl_transfer_crds::node::devices::LinkState;

use super::{nics::Nic, pci::Place};

/// Distance of two functions, nearest first. In the words of `nvidia-smi topo`: PIX and PXB, PHB, NODE, SYS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Distance {
    /// Behind the same PCI switch, or on the same card.
    SameSwitch,
    /// Below the same PCI root.
    SameRoot,
    /// On the same NUMA node.
    SameNuma,
    /// On another NUMA node, or nobody tells.
    Far,
}

/// The distance of two functions.
pub fn distance(a: &Place, b: &Place) -> Distance {
    if shared_bridges(a, b) > 0 {
        Distance::SameSwitch
    } else if a.root.is_some() && a.root == b.root {
        Distance::SameRoot
    } else if a.numa.is_some() && a.numa == b.numa {
        Distance::SameNuma
    } else {
        Distance::Far
    }
}

/// Bridges that the ways of both go through.
fn shared_bridges(a: &Place, b: &Place) -> usize {
    a.bridges.iter().zip(&b.bridges).take_while(|(a, b)| a == b).count()
}

/// Names of NICs, the best for a GPU first: by distance, then by how much of the way is shared, then those whose link is
/// active, then the faster, then by name. A device with several ports stands where its best port does.
pub fn nearest(gpu: &Place, nics: &[Nic]) -> Vec<String> {
    let mut order: Vec<&Nic> = nics.iter().collect();
    order.sort_by_key(|nic| {
        let far = (Distance::Far, Reverse(0));
        let near = nic.place.as_ref();
        (
            near.map_or(far, |place| (distance(gpu, place), Reverse(shared_bridges(gpu, place)))),
            nic.state != LinkState::Active,
            Reverse(nic.rate),
            &nic.name,
        )
    });
    let mut names: Vec<String> = Vec::new();
    for nic in order {
        if !names.contains(&nic.name) {
            names.push(nic.name.clone());
        }
    }
    names
}
