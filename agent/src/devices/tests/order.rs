//! Distance and order as tables.

use nixl_transfer_crds::node::devices::LinkState;

use super::*;

/// `root/bridge/bridge@numa`; the function's own address does not matter.
fn place(text: &str) -> Place {
    let (path, numa) = text.split_once('@').unwrap();
    let mut parts = path.split('/');
    Place {
        address: address("0000:ff:00.0"),
        root: parts.next().filter(|root| !root.is_empty()).map(str::to_owned),
        bridges: parts.map(|bus| address(&format!("0000:{bus}:00.0"))).collect(),
        numa: numa.parse().ok(),
    }
}

#[test]
fn distances() {
    for (a, b, expected) in [
        ("pci0000:07/01/02@0", "pci0000:07/01/02@0", Distance::SameSwitch),
        ("pci0000:07/01/02@0", "pci0000:07/01/03@0", Distance::SameSwitch),
        // Layers of switches of different depth.
        ("pci0000:07/01/02/03/04@0", "pci0000:07/01@0", Distance::SameSwitch),
        ("pci0000:07/01@0", "pci0000:07/02@0", Distance::SameRoot),
        // The same bridge after different ones is not the same way.
        ("pci0000:07/01/03@0", "pci0000:07/02/03@0", Distance::SameRoot),
        // A virtual machine: no bridges, no NUMA.
        ("pci0000:00@", "pci0000:00@", Distance::SameRoot),
        ("pci0000:07/01@0", "pci0000:40/05@0", Distance::SameNuma),
        ("pci0000:07/01@0", "pci0000:40/05@1", Distance::Far),
        // Nobody tells is not the same node.
        ("pci0000:07/01@", "pci0000:40/05@", Distance::Far),
        ("pci0000:07/01@0", "pci0000:40/05@", Distance::Far),
        ("@", "@", Distance::Far),
    ] {
        assert_eq!(distance(&place(a), &place(b)), expected, "{a} {b}");
        assert_eq!(distance(&place(b), &place(a)), expected, "{b} {a}");
    }
    assert!(Distance::SameSwitch < Distance::SameRoot && Distance::SameRoot < Distance::SameNuma);
    assert!(Distance::SameNuma < Distance::Far);
}

#[test]
fn a_gpu_is_found_in_sysfs_by_its_uuid() {
    let gpu = |uuid: &str, at: Option<&str>| Gpu {
        index: 0,
        uuid: uuid.into(),
        model: String::new(),
        memory: None,
        address: at.map(address),
    };
    let at = |bus: &str| Place { address: address(bus), ..place("pci0000:07/01@0") };
    let hardware = Hardware {
        devices: Devices { displays: vec![at("0000:0f:00.0"), at("0000:2d:00.0")], ..Devices::default() },
        gpus: Some(vec![gpu("b", Some("0000:2d:00.0")), gpu("c", Some("0000:4c:00.0")), gpu("d", None)]),
    };
    assert_eq!(hardware.place_of("b").map(|place| place.address), Some(address("0000:2d:00.0")));
    for uuid in ["a", "c", "d"] {
        assert_eq!(hardware.place_of(uuid), None, "{uuid}");
    }
    assert_eq!(Hardware::default().place_of("b"), None, "before NVML has answered");
}

fn nic(name: &str, at: &str, state: LinkState, gigabits: u64) -> Nic {
    Nic {
        name: name.into(),
        port: Some(1),
        netdev: None,
        state,
        link_layer: "InfiniBand".into(),
        rate: Some(gigabits * 1000).filter(|rate| *rate > 0),
        place: (at != "nowhere").then(|| place(at)),
        rdma_sent: None,
        netdev_sent: None,
    }
}

#[test]
fn the_order_of_nics() {
    use LinkState::{Active, Down};
    const GPU: &str = "pci0000:07/01/02/03@0";
    const NEAR: &str = "pci0000:07/01/02@0";
    // Each pair: the first is better, by one rule more.
    for (rule, better, worse) in [
        ("switch before root", nic("z", NEAR, Down, 0), nic("a", "pci0000:07/09@0", Active, 400)),
        ("root before NUMA", nic("z", "pci0000:07/09@1", Down, 0), nic("a", "pci0000:40/09@0", Active, 400)),
        ("NUMA before far", nic("z", "pci0000:40@0", Down, 0), nic("a", "pci0000:80@1", Active, 400)),
        ("longer way shared", nic("z", NEAR, Down, 0), nic("a", "pci0000:07/01@0", Active, 400)),
        ("active", nic("z", NEAR, Active, 100), nic("a", NEAR, Down, 400)),
        ("rate", nic("z", NEAR, Active, 400), nic("a", NEAR, Active, 200)),
        ("a known rate", nic("z", NEAR, Active, 1), nic("a", NEAR, Active, 0)),
        ("name", nic("a", NEAR, Active, 400), nic("z", NEAR, Active, 400)),
        ("somewhere", nic("z", "pci0000:40@0", Down, 0), nic("a", "nowhere", Active, 400)),
        ("not even far", nic("a", "nowhere", Active, 400), nic("b", "pci0000:80@1", Active, 400)),
    ] {
        let expected = [better.name.clone(), worse.name.clone()];
        assert_eq!(nearest(&place(GPU), &[better.clone(), worse.clone()]), expected, "{rule}");
        assert_eq!(nearest(&place(GPU), &[worse, better]), expected, "{rule}");
    }
}

#[test]
fn a_device_with_two_ports_is_named_once_where_its_better_port_stands() {
    let down = Nic { port: Some(2), ..nic("mlx4_0", "pci0000:07/01@0", LinkState::Down, 0) };
    let up = nic("mlx4_0", "pci0000:07/01@0", LinkState::Active, 40);
    let other = nic("mlx4_1", "pci0000:07/01@0", LinkState::Active, 10);
    assert_eq!(nearest(&place("pci0000:07/01@0"), &[down, other, up]), ["mlx4_0", "mlx4_1"]);
}
