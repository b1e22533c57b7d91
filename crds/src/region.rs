//! MemoryRegion: a named piece of memory on a node, host or GPU, that can be a source or a destination. Types and
//! validation; who writes which field of the status stands at the field.

pub mod status;

use std::borrow::Cow;

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;
pub use status::MemoryRegionStatus;

/// A piece of memory on a node.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "nixl-transfer.io",
    version = "v1alpha1",
    kind = "MemoryRegion",
    plural = "memoryregions",
    shortname = "mr",
    category = "nixl",
    namespaced,
    status = "MemoryRegionStatus",
    derive = "PartialEq",
    doc = "A MemoryRegion is a named piece of memory on a node, host or GPU, that a TransferJob can read from or write to: held by the node's agent, handed over by a pod, or exposed by a Dynamo worker.",
    selectable = ".spec.node.name",
    validation = Rule::new("size(self.metadata.name) <= 63").message("metadata.name must be at most 63 characters"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node.name"),
    printcolumn(name = "Size", type_ = "integer", json_path = ".status.size"),
    printcolumn(name = "Device", type_ = "string", json_path = ".status.device"),
    printcolumn(name = "Access", type_ = "string", json_path = ".spec.access"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.content.digest", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.agent), has(self.workload), has(self.external)].exists_one(one, one)").message("give exactly one of agent, workload and external"),
    validation = Rule::new("self.node == oldSelf.node").message("node is immutable: memory does not move by itself; make another region and a TransferJob"),
    validation = Rule::new("has(self.agent) == has(oldSelf.agent) && has(self.workload) == has(oldSelf.workload)").message("whose memory it is cannot change; make another region")
)]
pub struct MemoryRegionSpec {
    /// The node whose memory it is.
    pub node: RegionNode,
    /// What TransferJobs may do with it.
    #[serde(default)]
    pub access: Access,
    /// Whose memory it is.
    #[serde(flatten)]
    pub held: Held,
}

/// A node by its name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
pub struct RegionNode {
    /// Name of a Node object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What TransferJobs may do with a region, in the words of nixl_connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Access {
    /// It may be a source.
    Readable,
    /// It may be a destination.
    Writable,
    /// Both.
    #[default]
    ReadWrite,
}

impl Access {
    /// Whether it may be a source.
    pub fn reads(self) -> bool {
        self != Self::Writable
    }

    /// Whether it may be a destination.
    pub fn writes(self) -> bool {
        self != Self::Readable
    }
}

/// Whose memory a region is. In YAML one of three fields; the rule stands at the spec.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Held {
    /// The node's agent allocates and holds it.
    Agent(AgentMemory),
    /// A pod on the node hands it over through the agent's socket.
    Workload(WorkloadMemory),
    /// A workload exposes it by itself and writes `status.rdmaMetadata`.
    External(ExternalMemory),
}

impl JsonSchema for Held {
    fn schema_name() -> Cow<'static, str> {
        "Held".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "properties": {
                "agent": generator.subschema_for::<AgentMemory>(),
                "workload": generator.subschema_for::<WorkloadMemory>(),
                "external": generator.subschema_for::<ExternalMemory>(),
            }
        })
    }
}

/// The node's agent allocates the memory, keeps it across transfers and frees it when the region is deleted. It is lost
/// when the agent ends. A change of it frees what was there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentMemory {
    /// Bytes of it, a quantity from 1 to 16Ti.
    #[schemars(schema_with = "crate::schema::region_size")]
    pub size: Quantity,
    /// `cpu` for host memory, or `cuda:N` for GPU N of the TransferNode.
    #[serde(default = "host")]
    #[schemars(length(max = 16), regex(pattern = "^(cpu|cuda:[0-9]{1,4})$"))]
    pub device: String,
}

fn host() -> String {
    "cpu".into()
}

/// A pod of the region's namespace, on its node, hands the memory over through the agent's socket. It is there as long as
/// that pod stays connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
pub struct WorkloadMemory {}

/// A workload, for example a Dynamo worker, exposes the memory through NIXL and writes `status.rdmaMetadata` itself. One
/// piece of metadata serves one transfer, to or from one place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalMemory {
    /// For a source: digest of the whole, as `xxh3:…` in lower-case hex. Without it nothing but the workload can know what
    /// should arrive, and the destination is `Unverified`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^(xxh3|crc64nvme|blake3):[0-9a-f]+$"))]
    pub digest: Option<String>,
}
