//! What is decided for the trees of the inventory's fixtures, and what the status says, as tables.

use std::fs;

use nixl_transfer_crds::node::devices::LinkState;

use super::*;
use crate::{
    devices::{self, NumaNode, tests::tree},
    protocol::Used,
};

const REGISTERS: u64 = 256 << 20;

fn fixture(name: &str) -> Devices {
    let root = tempfile::tempdir().unwrap();
    let text = format!("{}/tests/fixtures/sysfs/{name}.tree", env!("CARGO_MANIFEST_DIR"));
    tree::build(root.path(), &fs::read_to_string(text).unwrap()).unwrap();
    devices::look(root.path())
}

fn spec(require: &str, target: &str) -> TransferTaskSpec {
    serde_json::from_value(serde_json::json!({
        "jobRef": {"name": "j", "uid": "1"}, "run": 1, "attempt": 0, "failures": 0, "direction": "Write",
        "source": {"nodeName": "a", "instance": "i", "volume": {"name": "v", "path": "p"}},
        "target": {"nodeName": target, "nodeUID": "n", "instance": "i", "destination": "d",
                   "volume": {"name": "v", "path": "p"}},
        "transport": {"require": require}, "integrity": {}, "writePolicy": "Overwrite",
        "deadlines": {"pendingSeconds": 1, "progressSeconds": 1}, "cancel": false
    }))
    .unwrap()
}

fn here<'a>(devices: &'a Devices, interfaces: &'a [String]) -> Here<'a> {
    Here { node: "b", interfaces, named: false, devices, memlock: None, registers: REGISTERS, gpu: None }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn each_tree_has_its_network() {
    // One for each GPU and one beside them.
    let nine =
        ["0:1", "12:1", "14:1", "16:1", "2:1", "3:1", "5:1", "7:1", "9:1"].map(|port| format!("mlx5_{port}"));
    for (tree, transports, ports, shortfall) in [
        ("vm-no-gpu", "tcp", vec![], Some(Reason::NoRdmaDevice)),
        ("vm-h200", "tcp", vec![], Some(Reason::NoRdmaDevice)),
        ("workstation-2gpu-ethernet", "tcp", vec![], Some(Reason::NoRdmaDevice)),
        ("nic-down", "rc,tcp", owned(&["mlx5_0:1"]), None),
        ("hgx-h100-8gpu-8nic", "rc,tcp", nine.to_vec(), None),
    ] {
        let (devices, interfaces) = (fixture(tree), owned(&["eth7"]));
        let choice = choose(&spec("Any", "b"), &here(&devices, &interfaces)).unwrap();
        assert_eq!(choice.network.transports.join(","), transports, "{tree}");
        let mut found = choice.network.devices.clone();
        assert_eq!(found.pop().as_deref(), Some("eth7"), "{tree}: TCP comes last");
        found.sort();
        assert_eq!(found, ports, "{tree}");
        assert_eq!(choice.shortfall.as_ref().map(|shortfall| shortfall.reason), shortfall, "{tree}");

        let required = choose(&spec("Rdma", "b"), &here(&devices, &interfaces));
        match (required, shortfall) {
            (Ok(choice), None) => {
                assert_eq!(choice.network.transports, ["rc"], "{tree}: no way to go over TCP");
                assert!(choice.network.devices.iter().all(|name| name != "eth7"), "{tree}");
            }
            (Err(failure), Some(_)) => {
                assert_eq!(failure.reason, Reason::BackendUnavailable, "{tree}");
                let says = |words: &str| failure.message.contains(words);
                assert!(says("node b") && says("RDMA") && says("spec.transport.require"), "{failure}");
            }
            (other, _) => panic!("{tree}: {other:?}"),
        }
    }
}

#[test]
fn a_port_that_cannot_be_used_is_named_with_what_it_lacks() {
    let mut devices = fixture("nic-down");
    for nic in &mut devices.nics {
        nic.state = LinkState::Down;
    }
    let interfaces = owned(&["eno1"]);
    let all_down = here(&devices, &interfaces);
    let good = fixture("nic-down");
    let up = here(&good, &interfaces);
    let needed = REGISTERS + nixl_transfer_crds::node::RDMA_QUEUES;
    for (here, reason, words) in [
        (all_down, Reason::LinkDown, "mlx5_0:1 is Down, mlx5_1:1 is Down"),
        (Here { memlock: Some(8 << 20), ..up }, Reason::MemlockTooSmall, "may lock 8388608 bytes"),
        (Here { memlock: Some(needed - 1), ..up }, Reason::MemlockTooSmall, "RDMA may need 335544320"),
        (Here { named: true, ..up }, Reason::NoRdmaDevice, "network.devices of the agent on node b"),
    ] {
        let choice = choose(&spec("Any", "b"), &here).unwrap();
        assert_eq!((choice.network.transports, choice.best), (owned(&["tcp"]), Best::Tcp));
        let shortfall = choice.shortfall.unwrap();
        assert_eq!(shortfall.reason, reason);
        assert!(shortfall.message.contains(words), "{shortfall}");
        let failure = choose(&spec("Rdma", "b"), &here).unwrap_err();
        assert_eq!(failure.reason, Reason::BackendUnavailable);
        assert!(failure.message.contains(words) && failure.message.contains("node b"), "{failure}");
    }
    assert!(choose(&spec("Rdma", "b"), &Here { memlock: Some(needed), ..up }).is_ok());
}

#[test]
fn an_administrators_names_hold_for_rdma_too() {
    let devices = fixture("nic-down");
    let over = devices.nics.iter().find(|nic| nic.name == "mlx5_0").unwrap().netdev.clone();
    let mut cases = vec![(owned(&["mlx5_0", "eno1"]), owned(&["mlx5_0:1", "eno1"]))];
    cases.extend(over.map(|over| (vec![over.clone()], vec!["mlx5_0:1".to_owned(), over])));
    for (interfaces, expected) in cases {
        let here = Here { named: true, ..here(&devices, &interfaces) };
        assert_eq!(choose(&spec("Any", "b"), &here).unwrap().network.devices, expected);
    }
}

#[test]
fn software_rdma_is_none() {
    let mut devices = fixture("nic-down");
    devices.nics.retain(|nic| nic.name == "mlx5_0");
    devices.nics[0].place = None;
    let interfaces = owned(&["eno1"]);
    let choice = choose(&spec("Any", "b"), &here(&devices, &interfaces)).unwrap();
    assert_eq!(choice.shortfall.unwrap().reason, Reason::NoRdmaDevice);
}

#[test]
fn a_gpu_has_the_nearest_port_first_and_its_numa_nodes_processors() {
    let mut devices = fixture("hgx-h100-8gpu-8nic");
    devices.numa = vec![NumaNode { number: 0, cpus: vec![0, 1] }, NumaNode { number: 1, cpus: vec![2, 3] }];
    let interfaces = owned(&["eth7"]);
    let places = devices.displays.clone();
    let first = |gpu: Option<&Place>| {
        let here = Here { gpu, ..here(&devices, &interfaces) };
        let network = choose(&spec("Any", "b"), &here).unwrap().network;
        (network.devices[0].clone(), network.cpus)
    };
    for (gpu, cpus) in [(0, vec![0, 1]), (7, vec![2, 3])] {
        let place = &places[gpu];
        let expected = format!("{}:1", devices::nearest(place, &devices.nics)[0]);
        assert_eq!(first(Some(place)), (expected, cpus), "GPU {gpu}");
    }
    // Ports of both: no place is near all of them.
    assert_eq!(first(None).1, [0; 0]);
    let mut one = devices.clone();
    one.nics.retain(|nic| nic.place.as_ref().is_some_and(|place| place.numa == Some(1)));
    let choice = choose(&spec("Any", "b"), &here(&one, &interfaces)).unwrap();
    assert_eq!(choice.network.cpus, [2, 3]);
    one.numa.truncate(1);
    one.numa[0].number = 1;
    let choice = choose(&spec("Any", "b"), &here(&one, &interfaces)).unwrap();
    assert_eq!(choice.network.cpus, [0; 0], "a machine with one node has nothing to choose");
}

#[test]
fn the_status_says_what_was_used() {
    let (rdma, plain, interfaces) = (fixture("nic-down"), fixture("vm-no-gpu"), owned(&["eth7"]));
    let no_common = Some("NoCommonBackend");
    for (devices, target, used, expected) in [
        (&plain, "b", (vec!["tcp"], vec!["eth7"]), ("tcp", vec!["eth7"], Some("NoRdmaDevice"))),
        // The only one that is allowed, although UCX says nothing; which device it was is not known.
        (&plain, "b", (vec![], vec![]), ("tcp", vec![], Some("NoRdmaDevice"))),
        (&plain, "a", (vec!["cma"], vec![]), ("sm", vec![], None)),
        (&plain, "a", (vec!["tcp"], vec!["lo"]), ("tcp", vec!["lo"], no_common)),
        (&plain, "a", (vec![], vec![]), ("unknown", vec![], None)),
        (&rdma, "b", (vec!["rc_mlx5"], vec!["mlx5_0:1"]), ("rc", vec!["mlx5_0:1"], None)),
        (&rdma, "b", (vec!["rc_verbs", "tcp"], vec![]), ("rc,tcp", vec![], None)),
        (&rdma, "b", (vec!["tcp"], vec!["eth7"]), ("tcp", vec!["eth7"], no_common)),
        (&rdma, "b", (vec!["new_one"], vec![]), ("new_one", vec![], no_common)),
        (&rdma, "b", (vec![], vec![]), ("unknown", vec![], None)),
    ] {
        let choice = choose(&spec("Any", target), &here(devices, &interfaces)).unwrap();
        let used = Used { transports: owned(&used.0), devices: owned(&used.1) };
        let shown = choice.used(&used).unwrap();
        let found = (shown.network.as_str(), shown.devices, shown.fallback_reason.as_deref());
        assert_eq!(found, (expected.0, owned(&expected.1), expected.2), "{used:?}");
    }
}

#[test]
fn what_is_required_is_checked_against_what_was_used() {
    let (devices, interfaces) = (fixture("nic-down"), owned(&["eth7"]));
    let used = |name: &str| Used { transports: owned(&[name]), devices: Vec::new() };
    for target in ["a", "b"] {
        let choice = choose(&spec("Rdma", target), &here(&devices, &interfaces)).unwrap();
        assert_eq!(choice.used(&used("tcp")).unwrap_err().reason, Reason::BackendUnavailable);
        assert!(choice.used(&used(if target == "a" { "cma" } else { "rc_verbs" })).is_ok());
    }
}

#[test]
fn what_a_worker_says_fits_into_the_status() {
    let (devices, interfaces) = (fixture("vm-no-gpu"), owned(&["eth7"]));
    let choice = choose(&spec("Any", "b"), &here(&devices, &interfaces)).unwrap();
    let many: Vec<String> = (0..100).map(|number| format!("{number}{}", "é".repeat(100))).collect();
    let shown = choice.used(&Used { transports: many.clone(), devices: many }).unwrap();
    assert_eq!(shown.network.chars().count(), 64);
    assert!(shown.devices.len() == 16 && shown.devices.iter().all(|name| name.chars().count() == 64));
}
