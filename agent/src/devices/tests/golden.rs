//! Each tree's whole inventory against `agent/tests/fixtures/sysfs/NAME.golden.yaml`. With `NIXL_TRANSFER_WRITE_GOLDEN=1` the
//! files are written anew; read what has changed before it is committed.

use super::*;

/// A tree, and the addresses of the GPUs in it: NVML is not there, so they are given.
const TREES: &[(&str, &[&str])] = &[
    ("vm-no-gpu", &[]),
    ("vm-h200", &["0000:00:06.0"]),
    ("workstation-2gpu-ethernet", &["0000:01:00.0", "0000:02:00.0"]),
    ("nic-down", &["0000:01:00.0", "0000:41:00.0"]),
    ("data-direct", &["0008:06:00.0", "0009:06:00.0"]),
    (
        "hgx-h100-8gpu-8nic",
        &[
            "0000:0f:00.0",
            "0000:2d:00.0",
            "0000:44:00.0",
            "0000:5b:00.0",
            "0000:89:00.0",
            "0000:a8:00.0",
            "0000:c0:00.0",
            "0000:d8:00.0",
        ],
    ),
];

#[test]
fn every_tree_gives_what_its_golden_file_says() {
    let rewrite = std::env::var_os("NIXL_TRANSFER_WRITE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for (name, gpus) in TREES {
        let devices = Root::fixture(name).look();
        // Every GPU of the tree is given, and nothing else is taken for one.
        let displays: Vec<String> = devices.displays.iter().map(|place| place.address.to_string()).collect();
        assert_eq!(displays, *gpus, "{name}");
        let found = serde_yaml::to_string(&shown(&fake_gpus(gpus), &devices)).unwrap();
        let file = fixtures().join(format!("{name}.golden.yaml"));
        if rewrite {
            fs::write(&file, &found).unwrap();
        } else if fs::read_to_string(&file).unwrap_or_default() != found {
            wrong.push(format!("{name}: the inventory is now\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_tree_has_a_golden_file() {
    let mut trees: Vec<String> = fs::read_dir(fixtures())
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".tree")?.to_owned()))
        .collect();
    trees.sort();
    let mut tested: Vec<&str> = TREES.iter().map(|(name, _)| *name).collect();
    tested.sort_unstable();
    assert_eq!(trees, tested);
}
