//! TransferNode: what an agent says about its node. Cluster-scoped, named as the node. Types only.

pub mod devices;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use devices::{GpuDirectStatus, GpuStatus, NicStatus};

/// What UCX' own queues of an RDMA port may lock beside the memory of transfers. An estimate; never measured.
pub const RDMA_QUEUES: u64 = 64 << 20;

/// What an administrator asks of a node's agent.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "nixl-transfer.io",
    version = "v1alpha1",
    kind = "TransferNode",
    plural = "transfernodes",
    shortname = "tn",
    category = "nixl",
    status = "TransferNodeStatus",
    derive = "PartialEq",
    doc = "A TransferNode is what the agent of a node reports: its NIXL, its volumes, its devices and its limits. The agent creates it under the node's name.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Agent", type_ = "string", json_path = ".status.agentVersion"),
    printcolumn(name = "NIXL", type_ = "string", json_path = ".status.nixlVersion"),
    printcolumn(name = "Volumes", type_ = "string", json_path = ".status.volumes[*].name"),
    printcolumn(name = "Slots", type_ = "integer", json_path = ".status.slots.total"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct TransferNodeSpec {
    /// Drains the node: no new transfer starts from it or to it, those under way finish.
    #[serde(default)]
    pub unschedulable: bool,
}

/// What the agent found on its node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TransferNodeStatus {
    /// UUID of this start of the agent.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub instance: String,
    /// Version of the agent.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub agent_version: String,
    /// Version of the NIXL library, as a worker found it.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub nixl_version: String,
    /// X25519 key of this start of the agent, in base64: what others publish for it in a task is sealed to it (HPKE, RFC 9180).
    /// Absent from agents of earlier versions, which others talk to in plain.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub public_key: String,
    /// NIXL backends that a worker could load.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub backends: Vec<BackendStatus>,
    /// Published volumes. One whose path leads to another directory or mount than at the agent's start is left out, and the
    /// Ready condition says so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub volumes: Vec<VolumeStatus>,
    /// NVIDIA GPUs, by NVML; empty where the agent cannot load NVML. At most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub gpus: Vec<GpuStatus>,
    /// RDMA ports and Ethernet interfaces of the hardware, from sysfs. At most 128: where there are more, those whose link is
    /// active and those with RDMA are kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub nics: Vec<NicStatus>,
    /// Kernel modules for GPUDirect; absent where sysfs shows none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_direct: Option<GpuDirectStatus>,
    /// Staging memory for transfers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staging: Option<Budget>,
    /// Host memory for MemoryRegions of kind `agent`, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Budget>,
    /// Hops that may run at once on this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<Budget>,
    /// Memory that a worker may lock, in bytes; absent means unlimited. RDMA needs more than the staging memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memlock: Option<i64>,
    /// Ready, with why not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A NIXL backend on a node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendStatus {
    /// Its name, for example `UCX`.
    #[schemars(length(max = 32))]
    pub name: String,
    /// Kinds of memory it moves, in NIXL's words.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(max = 16)))]
    pub memory_types: Vec<String>,
}

/// A published volume on a node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStatus {
    /// Its name in jobs.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Whether it may only be read: by the agent's configuration, or because its file system is mounted so now.
    #[serde(default)]
    pub read_only: bool,
    /// Size of its file system in bytes.
    pub capacity: i64,
    /// Free bytes of it, refreshed when they have changed by more than one percent of the capacity.
    pub free: i64,
    /// Namespaces whose jobs may use it; `*` means all.
    #[serde(default)]
    #[schemars(length(max = 256), inner(length(max = 63)))]
    pub allowed_namespaces: Vec<String>,
}

/// An amount of something that transfers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Budget {
    /// How much there is.
    pub total: i64,
    /// How much of it nobody has taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<i64>,
}

impl TransferNode {
    /// The volume of that name, if the agent publishes it.
    pub fn volume(&self, name: &str) -> Option<&VolumeStatus> {
        self.status.as_ref()?.volumes.iter().find(|volume| volume.name == name)
    }
}

impl VolumeStatus {
    /// Whether jobs of the namespace may use the volume.
    pub fn allows(&self, namespace: &str) -> bool {
        self.allowed_namespaces.iter().any(|allowed| allowed == "*" || allowed == namespace)
    }
}
