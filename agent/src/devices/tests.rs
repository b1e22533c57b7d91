//! The inventory of whole trees, held against golden files, and of trees that change or make no sense.

mod bounds;
mod golden;
mod malformed;
mod order;
mod special;

#[path = "../../tests/fixtures/sysfs/tree.rs"]
pub(crate) mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::*;

/// A directory that plays `/sys`.
struct Root(TempDir);

impl Root {
    fn empty() -> Self {
        Self(tempfile::Builder::new().prefix("nixl-transfer-sysfs-").tempdir().unwrap())
    }

    /// The fixture of that name.
    fn fixture(name: &str) -> Self {
        Self::of(&fs::read_to_string(fixtures().join(format!("{name}.tree"))).unwrap())
    }

    fn of(tree: &str) -> Self {
        let root = Self::empty();
        root.add(tree);
        root
    }

    fn add(&self, tree: &str) {
        tree::build(self.0.path(), tree).unwrap();
    }

    fn look(&self) -> Devices {
        look(self.0.path())
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sysfs")
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// What NVML would say of GPUs at these addresses. All of it but the address is made up.
fn fake_gpus(addresses: &[&str]) -> Vec<Gpu> {
    let gpu = |(index, address): (usize, &&str)| Gpu {
        index: index as u32,
        uuid: format!("GPU-fake-{index}"),
        model: "Fake GPU".into(),
        memory: Some(80 << 30),
        // As NVML writes it.
        address: Some(self::address(&format!("0000{}", address.to_uppercase()))),
    };
    addresses.iter().enumerate().map(gpu).collect()
}
