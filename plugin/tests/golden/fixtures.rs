//! The objects that are shown: YAML files, each with what it stands for in its first line.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::Timestamp;
use nixl_transfer_crds::{TransferJob, TransferTask};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The time that it is in every golden file.
pub const NOW: &str = "2026-01-02T03:10:00Z";

pub fn now() -> Timestamp {
    NOW.parse().unwrap()
}

pub fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// A file as the API server would have it; anchors and merges are for the writer's convenience.
pub fn value(path: &str) -> Value {
    let text =
        std::fs::read_to_string(directory().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut yaml: serde_yaml::Value =
        serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
    yaml.apply_merge().unwrap();
    serde_json::to_value(yaml).unwrap()
}

pub fn typed<T: DeserializeOwned>(path: &str) -> T {
    serde_json::from_value(value(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All jobs by name.
pub fn jobs() -> BTreeMap<String, Value> {
    let entries = std::fs::read_dir(directory().join("jobs")).unwrap();
    let names = entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
    names.map(|name| (name.clone(), value(&format!("jobs/{name}.yaml")))).collect()
}

pub fn job(name: &str) -> TransferJob {
    typed(&format!("jobs/{name}.yaml"))
}

pub fn tasks() -> Vec<TransferTask> {
    typed("tasks/one-to-many.yaml")
}
