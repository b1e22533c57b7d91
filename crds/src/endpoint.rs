//! Where data comes from and goes to: nodes, paths beneath published volumes, and memory. Types and validation only.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// One end of a move: a path in a volume, or memory. In YAML the field `volume` or the field `memory`, never both; whoever
/// embeds it has the rule that says so.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Place<V, M> {
    /// Beneath a published volume.
    Volume(V),
    /// A MemoryRegion.
    Memory(M),
}

/// Two optional fields, and no `oneOf`: the API server's words about that one name no field.
impl<V: JsonSchema, M: JsonSchema> JsonSchema for Place<V, M> {
    fn schema_name() -> Cow<'static, str> {
        format!("Place_{}_{}", V::schema_name(), M::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "properties": {
                "volume": generator.subschema_for::<V>(),
                "memory": generator.subschema_for::<M>(),
            }
        })
    }
}

impl<V, M> Place<V, M> {
    /// The volume, unless it is memory.
    pub fn volume(&self) -> Option<&V> {
        match self {
            Self::Volume(volume) => Some(volume),
            Self::Memory(_) => None,
        }
    }

    /// The memory, unless it is a volume.
    pub fn memory(&self) -> Option<&M> {
        match self {
            Self::Volume(_) => None,
            Self::Memory(memory) => Some(memory),
        }
    }
}

/// A MemoryRegion in the job's namespace. It is on one node, which need not be named again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, KubeSchema)]
pub struct MemoryRef {
    /// Name of the MemoryRegion.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

/// Names one node, or selects nodes by their labels. Exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.name) != has(self.selector)").message("give exactly one of name and selector")
)]
pub struct NodeRef {
    /// Name of a Node object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Selects Node objects by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::label_selector")]
    pub selector: Option<LabelSelector>,
}

/// A path beneath a volume that the administrator has published on the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRef {
    /// Name of the volume in the agent's configuration.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Path of a file or a directory, relative to the volume's root; empty means the root itself. At most 1,024 bytes,
    /// at most 255 bytes for each component. Symbolic links on the way are refused.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(
        validation = Rule::new("!self.startsWith('/')").message("must be relative to the volume's root: remove the leading slash"),
        validation = Rule::new("!self.matches('(^|/)[.][.](/|$)')").message("must not contain '..': a path cannot leave its volume"),
        validation = Rule::new("!self.matches('[\\\\x00-\\\\x1f\\\\x7f]')").message("must not contain control characters such as NUL or newline")
    )]
    pub path: String,
}

/// The source of a TransferJob: what is moved, and from where.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.volume) != has(self.memory)").message("give exactly one of volume and memory"),
    validation = Rule::new("has(self.memory) || has(self.node)").message("a volume needs a node: give node.name or node.selector")
)]
pub struct Source {
    /// The node that has the data. With a selector the operator picks a ready node that publishes the volume, the
    /// least busy first. May be left out for memory, which is on a node of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeRef>,
    /// What is moved.
    #[serde(flatten)]
    pub place: Place<SourceVolume, MemoryRef>,
}

/// A file or directory tree to read, with filters for trees.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceVolume {
    /// The volume and the path in it.
    #[serde(flatten)]
    pub at: VolumeRef,
    /// Globs of files to move; empty means all. A glob without a slash matches the file's name at any depth, one with
    /// a slash matches the path from the directory's root. `*` does not cross a slash, `**` does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub include: Vec<String>,
    /// Globs of files and directories to leave out; wins over `include`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub exclude: Vec<String>,
}

/// One destination of a TransferJob; it may match many nodes.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.volume) != has(self.memory)").message("give exactly one of volume and memory"),
    validation = Rule::new("has(self.memory) || has(self.node)").message("a volume needs a node: give node.name or node.selector")
)]
pub struct Destination {
    /// Unique among the job's destinations.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The node, or the nodes, that receive the data. May be left out for memory, which is on a node of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeRef>,
    /// Where it is put. In a volume for a file the path of the file, for a directory the directory that it is merged
    /// into; directories that are missing on the way are created. In memory a file is put at the start.
    #[serde(flatten)]
    pub place: Place<VolumeRef, MemoryRef>,
}
