//! Where data comes from and goes to: nodes, and paths beneath published volumes. Types and validation only.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

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
pub struct Source {
    /// The node that has the data. With a selector the operator picks a ready node that publishes the volume, the
    /// least busy first.
    pub node: NodeRef,
    /// The file or directory to move.
    pub volume: SourceVolume,
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
pub struct Destination {
    /// Unique among the job's destinations.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The node, or the nodes, that receive the data.
    pub node: NodeRef,
    /// Where it is put. For a file the path of the file, for a directory the directory that it is merged into;
    /// directories that are missing on the way are created.
    pub volume: VolumeRef,
}
