//! Whatever stands in sysfs, a look ends, panics never, and gives a status that the API server takes.

use std::os::unix::{ffi::OsStrExt, fs::symlink};

use proptest::prelude::*;

use super::{bounds::assert_fits, *};

/// Files that the fixtures have not, and that a look reads.
const MORE: &str = "
devices/pci0000:20/0000:20:03.1/0000:21:00.0/infiniband/mlx5_0/ports/1/counters/port_xmit_data = 1
devices/pci0000:20/0000:20:03.1/0000:21:00.0/net/enp33s0f0np0/dev_port = 0
devices/pci0000:20/0000:20:03.1/0000:21:00.0/net/enp33s0f0np0/phys_port_name = p0
devices/pci0000:80/0000:80:05.1/0000:82:00.0/net/eno1/statistics/tx_bytes = 1
devices/pci0000:80/0000:80:05.1/0000:82:00.0/net/eno1/phys_port_name = p0
";

/// Contents that no kernel writes, and some that it does.
fn odd_contents() -> Vec<Vec<u8>> {
    let texts = [
        "",
        "\n",
        "-1\n",
        "4: ACTIVE\n",
        "4294967295\n",
        "18446744073709551615\n",
        "0x10de\n",
        "0xffffffff\n",
    ];
    let mut contents: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    contents.push(b"99999999999999999999999 Gb/sec (4X)\n".to_vec());
    contents.push(vec![b'9'; 1 << 16]);
    contents.push(vec![b'x'; 4000]);
    contents.push(vec![0xff; 64]);
    contents
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::sample::select(odd_contents()),
        "\\PC{0,200}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..100),
    ]
}

#[test]
fn every_file_may_hold_anything() {
    let root = Root::fixture("nic-down");
    root.add(MORE);
    let gpus = fake_gpus(&["0000:01:00.0"]);
    let mut all = Vec::new();
    paths(root.0.path(), &mut all);
    // Bridges are many, and of no other kind than the GPU's function.
    all.retain(|path| {
        let text = path.to_str().unwrap();
        let is_read = ["/net/", "/infiniband/", "0000:01:00.0/"].iter().any(|part| text.contains(part));
        is_read && fs::symlink_metadata(path).unwrap().is_file()
    });
    assert!(all.len() > 30);
    for path in all {
        let before = fs::read(&path).unwrap();
        for content in odd_contents() {
            fs::write(&path, content).unwrap();
            assert_fits(&shown(&gpus, &root.look()));
        }
        fs::write(&path, before).unwrap();
    }
}

/// What is done to a path of the tree.
#[derive(Clone, Debug)]
enum Harm {
    Write(Vec<u8>),
    Remove,
    Directory,
    Link(String),
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        6 => content().prop_map(Harm::Write),
        1 => Just(Harm::Remove),
        1 => Just(Harm::Directory),
        1 => prop_oneof![Just("."), Just("../.."), Just("../../../../../../../../.."), Just("/proc/self"), Just("loop")]
            .prop_map(|target| Harm::Link(target.into())),
    ]
}

fn paths(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            paths(&entry.path(), found);
        }
    }
}

fn remove(path: &Path) {
    // What is above it may be gone already.
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        fs::remove_dir_all(path).unwrap();
    } else {
        let _ = fs::remove_file(path);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_look_at_a_damaged_tree_ends_and_fits(
        harms in proptest::collection::vec((any::<proptest::sample::Index>(), harm()), 1..40),
        tree in proptest::sample::select(&["nic-down", "data-direct"][..]),
    ) {
        let root = Root::fixture(tree);
        let mut all = Vec::new();
        paths(root.0.path(), &mut all);
        all.sort();
        for (index, harm) in harms {
            let path = index.get(&all);
            remove(path);
            let _ = match harm {
                Harm::Write(content) => fs::write(path, content),
                Harm::Remove => Ok(()),
                Harm::Directory => fs::create_dir(path),
                Harm::Link(target) => symlink(target, path),
            };
        }
        let gpus = fake_gpus(&["0000:01:00.0", "0009:06:00.0", "0000:7f:1f.7"]);
        assert_fits(&shown(&gpus, &root.look()));
    }
}

#[test]
fn names_that_are_no_utf_8_are_passed_over() {
    let root = Root::fixture("nic-down");
    let expected = root.look();
    for class in ["class/net", "class/infiniband", "bus/pci/devices"] {
        let odd = std::ffi::OsStr::from_bytes(b"od\xffd");
        symlink("../../devices", root.0.path().join(class).join(odd)).unwrap();
    }
    assert_eq!(root.look(), expected);
}
