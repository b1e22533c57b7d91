//! What the clusters of a whole test suite leave behind, one small file each, so that somebody can look at all of them together.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::rights::Right;

/// Names the directory of the records; without it none is made.
pub const SUITE_RECORD: &str = "NIXL_TRANSFER_SUITE_RECORD";

/// What one cluster leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The test that had the cluster.
    pub test: String,
    /// False from the cluster's start until all the rest is known.
    pub ended: bool,
    /// Rights that operator and agents have used.
    pub used: BTreeSet<Right>,
    /// What they asked for and RBAC refused.
    pub refused: BTreeSet<Right>,
    /// Reasons of the closed list that its objects and events named.
    pub reasons: BTreeSet<String>,
    /// Secrets that stand where they must not: which, and where; never the secret itself.
    pub told: BTreeSet<String>,
    /// What could not be looked at.
    pub unseen: BTreeSet<String>,
}

impl Record {
    pub fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, serde_json::to_vec_pretty(self)?).with_context(|| path.display().to_string())
    }

    /// All of a directory.
    pub fn read_all(directory: &Path) -> Result<Vec<Self>> {
        let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
        entries
            .map(|entry| {
                let path = entry?.path();
                serde_json::from_slice(&fs::read(&path)?).with_context(|| path.display().to_string())
            })
            .collect()
    }
}
