//! What is known about a MemoryRegion. Written by the agent of its node, but for `rdmaMetadata`. Types only.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of a MemoryRegion.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MemoryRegionStatus {
    /// Generation of the spec that the rest is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Written by the workload of an external region, by nobody else: RdmaMetadata as nixl_connect writes it, one JSON string;
    /// a capability. At most 256 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub rdma_metadata: Option<String>,
    /// Bytes of the memory that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub size: Option<i64>,
    /// Where it is: `cpu` or `cuda:N`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub device: Option<String>,
    /// UUID of the start of the agent that holds it, or reaches it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub instance: Option<String>,
    /// The pod that handed it over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<HolderPod>,
    /// What the last complete transfer has put there. Absent while nothing has, while one writes, and after one that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<RegionContent>,
    /// Of an external region: digest of the notification key in the metadata that has served its one transfer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub consumed: Option<String>,
    /// Ready, with why not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// The pod that has handed over a region.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct HolderPod {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its UID.
    #[schemars(length(max = 64))]
    pub uid: String,
}

/// What a region holds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct RegionContent {
    /// Bytes from the start of the region.
    #[schemars(range(min = 0))]
    pub bytes: i64,
    /// Their digest.
    #[schemars(length(max = 128))]
    pub digest: String,
    /// Name of the job that moved them here.
    #[schemars(length(max = 253))]
    pub job: String,
    /// When they were complete.
    pub time: Time,
}
