//! What no fixture has, and what changes between two looks.

use nixl_transfer_crds::node::devices::LinkState;

use super::*;

const PORT: &str = "devices/pci0000:20/0000:20:03.1/0000:21:00.0/infiniband/mlx5_0/ports/1";
const CARD: &str = "devices/pci0000:20/0000:20:03.1/0000:21:00.0";

fn names(devices: &Devices) -> Vec<&str> {
    devices.nics.iter().map(|nic| nic.name.as_str()).collect()
}

#[test]
fn a_link_that_goes_down_is_seen_at_the_next_look_and_falls_behind() {
    let root = Root::fixture("nic-down");
    let gpus = fake_gpus(&["0000:01:00.0"]);
    let before = shown(&gpus, &root.look());
    assert_eq!((before.nics[0].state, before.nics[0].rate), (LinkState::Active, Some(200_000)));
    root.add(&format!("{PORT}/state = 1: DOWN\n{PORT}/rate = 40 Gb/sec (4X QDR)\n"));
    // And the port that was down comes up.
    let other = PORT.replace("00.0", "00.1").replace("mlx5_0", "mlx5_1");
    root.add(&format!("{other}/state = 4: ACTIVE\n{other}/rate = 200 Gb/sec (4X HDR)\n"));
    let after = shown(&gpus, &root.look());
    assert_eq!((after.nics[0].state, after.nics[0].rate), (LinkState::Down, None));
    assert_eq!(before.gpus[0].nics[..2], ["mlx5_0", "mlx5_1"]);
    assert_eq!(after.gpus[0].nics[..2], ["mlx5_1", "mlx5_0"]);
}

#[test]
fn a_card_that_is_pulled_is_gone() {
    let root = Root::fixture("nic-down");
    // Half gone first: the links into it stand, what they lead to does not.
    fs::remove_dir_all(root.0.path().join(CARD)).unwrap();
    assert_eq!(names(&root.look()), ["mlx5_1", "eno1", "eno2"]);
    fs::remove_file(root.0.path().join("class/infiniband/mlx5_0")).unwrap();
    assert_eq!(names(&root.look()), ["mlx5_1", "eno1", "eno2"]);
}

#[test]
fn what_is_sent_is_counted_by_the_port_and_by_its_ethernet_interface() {
    let root = Root::fixture("nic-down");
    root.add(&format!(
        "{PORT}/counters/port_xmit_data = 250\n{CARD}/net/enp33s0f0np0/statistics/tx_bytes = 77\n\
         devices/pci0000:80/0000:80:05.1/0000:82:00.0/net/eno1/statistics/tx_bytes = 5\n"
    ));
    let sent: Vec<_> = root.look().nics.iter().map(|nic| (nic.rdma_sent, nic.netdev_sent)).collect();
    assert_eq!(sent, [(Some(1000), Some(77)), (None, None), (None, Some(5)), (None, None)]);
    // An InfiniBand port counts what its interface sends: twice would be wrong.
    root.add(&format!("{PORT}/link_layer = InfiniBand\n"));
    assert_eq!(root.look().nics[0].netdev_sent, None);
}

#[test]
fn an_infiniband_port_has_the_interface_of_its_function_if_there_is_one_only() {
    let root = Root::fixture("data-direct");
    let netdev = |root: &Root| root.look().nics[0].netdev.clone();
    assert_eq!(netdev(&root).as_deref(), Some("ibp3s0"));
    let card = "devices/pci0000:00/0000:00:00.0/0000:01:00.0/0000:02:00.0/0000:03:00.0";
    root.add(&format!(
        "class/net/ib1 -> ../../{card}/net/ib1\n{card}/net/ib1/device -> ../../../0000:03:00.0\n{card}/net/ib1/dev_port = 1\n"
    ));
    assert_eq!(netdev(&root).as_deref(), Some("ibp3s0"), "the other is of another port");
    root.add(&format!("{card}/net/ib1/dev_port = 0\n"));
    assert_eq!(netdev(&root), None, "nobody tells which");
}

#[test]
fn interfaces_that_are_no_hardware_of_their_own_are_left_out() {
    let root = Root::fixture("nic-down");
    let function = "devices/pci0000:80/0000:80:05.1/0000:82:00.0";
    let netdev = |name: &str, more: &str| {
        let at = format!("{function}/net/{name}");
        root.add(&format!(
            "class/net/{name} -> ../../{at}\n{at}/device -> ../../../0000:82:00.0\n{at}/{more}\n"
        ));
        root.add(&format!("{at}/type = 1\n"));
    };
    netdev("uplink", "phys_port_name = p0");
    netdev("vf0", "phys_port_name = pf0vf0");
    netdev("sf0", "phys_port_name = pf0sf1");
    netdev("wlan0", "phy80211/");
    netdev("nolink", "operstate = lowerlayerdown");
    root.add("class/net/bonding_masters = bond0\n");
    assert_eq!(names(&root.look()), ["mlx5_0", "mlx5_1", "eno1", "eno2", "nolink", "uplink"]);
}

#[test]
fn software_rdma_is_shown_without_a_place_and_hides_no_interface() {
    let root = Root::fixture("vm-no-gpu");
    root.add(
        "class/infiniband/rxe0 -> ../../devices/virtual/infiniband/rxe0\n\
         devices/virtual/infiniband/rxe0/ports/1/state = 4: ACTIVE\n\
         devices/virtual/infiniband/rxe0/ports/1/gid_attrs/ndevs/0 = eth0\n",
    );
    let devices = root.look();
    assert_eq!(names(&devices), ["rxe0", "eth0"]);
    assert_eq!((devices.nics[0].place.as_ref(), devices.nics[0].netdev.as_deref()), (None, Some("eth0")));
}

#[test]
fn modules_for_gpudirect() {
    for (file, expected) in [
        ("module/nvidia_peermem/initstate", (true, false)),
        ("kernel/mm/memory_peers/nv_mem/version", (true, false)),
        ("module/nvidia_fs/version", (false, true)),
        ("module/nvidia/version", (false, false)),
    ] {
        let devices = Root::of(&format!("{file} = 1\n")).look();
        assert_eq!((devices.peer_memory_module, devices.storage_module), expected, "{file}");
        assert_eq!(shown(&[], &devices).gpu_direct.is_some(), expected != (false, false), "{file}");
    }
}

#[test]
fn a_gpu_that_sysfs_does_not_show_has_no_place_and_no_order() {
    let devices = Root::fixture("vm-h200").look();
    let gpu = &shown(&fake_gpus(&["0000:00:09.0"]), &devices).gpus[0];
    assert_eq!((gpu.pci_bus_id.as_str(), gpu.pcie_root.as_str(), gpu.nics.len()), ("0000:00:09.0", "", 0));
}

#[test]
fn no_sysfs_is_no_devices() {
    assert_eq!(look(Path::new("/nonexistent")), Devices::default());
}
