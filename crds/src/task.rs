//! TransferTask: one hop of a run, one attempt. Written by the operator (spec) and by two agents (a half of the status
//! each); users only look. Types, and the rule that halves go forward only.

pub mod status;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{
    endpoint::{Place, SourceVolume, VolumeRef},
    policy::{Deadlines, Direction, Integrity, Transport, WritePolicy},
};
pub use status::{Side, SideState, TransferTaskStatus};

/// One hop: what one node sends to one other node in one attempt. Resolved: no question is left open for an agent.
/// Everything but `cancel` and `discard` is immutable.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "nixl-transfer.io",
    version = "v1alpha1",
    kind = "TransferTask",
    plural = "transfertasks",
    shortname = "tt",
    category = "nixl",
    namespaced,
    status = "TransferTaskStatus",
    derive = "PartialEq",
    doc = "A TransferTask is one hop of a TransferJob's run, from one node to one node, in one attempt. The operator and the agents write it; change the TransferJob instead.",
    selectable = ".spec.source.nodeName",
    selectable = ".spec.target.nodeName",
    printcolumn(name = "Job", type_ = "string", json_path = ".spec.jobRef.name"),
    printcolumn(name = "Run", type_ = "integer", json_path = ".spec.run"),
    printcolumn(name = "From", type_ = "string", json_path = ".spec.source.nodeName"),
    printcolumn(name = "To", type_ = "string", json_path = ".spec.target.nodeName"),
    printcolumn(name = "Attempt", type_ = "integer", json_path = ".spec.attempt"),
    printcolumn(name = "Source", type_ = "string", json_path = ".status.source.state"),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.target.state"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.target.reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Network",
        type_ = "string",
        json_path = ".status.target.transport.network",
        priority = 1
    ),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.target.digest", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.target.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.jobRef == oldSelf.jobRef && self.run == oldSelf.run && self.attempt == oldSelf.attempt && self.failures == oldSelf.failures && self.direction == oldSelf.direction && self.source == oldSelf.source && self.target == oldSelf.target && self.transport == oldSelf.transport && self.integrity == oldSelf.integrity && self.writePolicy == oldSelf.writePolicy && self.deadlines == oldSelf.deadlines").message("a task is immutable but for cancel and discard; change the TransferJob instead"),
    validation = Rule::new("self.cancel || !oldSelf.cancel").message("a cancelled task stays cancelled"),
    validation = Rule::new("self.discard || !oldSelf.discard").message("what is discarded does not come back")
)]
pub struct TransferTaskSpec {
    /// The job that this hop belongs to.
    pub job_ref: JobRef,
    /// The job's run, counted from 1.
    #[schemars(range(min = 1))]
    pub run: i64,
    /// Attempt of this hop in its run, counted from 0.
    #[schemars(range(min = 0))]
    pub attempt: i32,
    /// Attempts of this hop that failed before this one; cancelled ones do not count.
    #[schemars(range(min = 0))]
    pub failures: i32,
    /// Who moves the bytes.
    pub direction: Direction,
    /// The sending end.
    pub source: TaskSource,
    /// The receiving end.
    pub target: TaskTarget,
    /// How the bytes travel.
    pub transport: Transport,
    /// How the content is proven.
    pub integrity: Integrity,
    /// What happens to destination files that exist.
    pub write_policy: WritePolicy,
    /// When the agents give up by themselves.
    pub deadlines: Deadlines,
    /// Asks both agents to end their workers and report Cancelled. Never taken back.
    #[serde(default)]
    pub cancel: bool,
    /// Asks the target's agent to remove what it keeps for a further attempt: there will be none. Never taken back.
    #[serde(default)]
    pub discard: bool,
}

/// The job a task belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, KubeSchema)]
pub struct JobRef {
    /// Its name, in the task's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its UID: a job deleted and made again under one name is another job.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// A MemoryRegion, and which one of that name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, KubeSchema)]
pub struct TaskMemory {
    /// Its name, in the task's namespace.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Its UID: a region deleted and made again under one name is another region.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
    /// Of a source: nothing proves that what is read is what its owner means, since it is external and its owner has given no
    /// digest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unverified: bool,
}

/// The sending end of a hop.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.volume) != has(self.memory)").message("give exactly one of volume and memory")
)]
pub struct TaskSource {
    /// The node that sends.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
    /// Instance of that node's agent; another instance reports `AgentRestarted`.
    #[schemars(length(min = 1, max = 64))]
    pub instance: String,
    /// What is moved. Read on this node, unless `relay` is set.
    #[serde(flatten)]
    pub place: Place<SourceVolume, TaskMemory>,
    /// In a chain: this node has no copy of its own yet, and sends on what it receives by another task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<Relay>,
}

/// Where a node in a chain gets from what it sends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Relay {
    /// Name of the task by which the node receives, of the same run. Its target names this task in `forwardTo`.
    #[schemars(length(min = 1, max = 253))]
    pub task_name: String,
    /// Seconds that the next node may take nothing before it is given up. Shorter the further down the chain, so that the
    /// node before the one that hangs sees it first, and all others go on.
    #[schemars(range(min = 1))]
    pub progress_seconds: i64,
}

/// The receiving end of a hop.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.volume) != has(self.memory)").message("give exactly one of volume and memory")
)]
pub struct TaskTarget {
    /// The node that receives.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
    /// UID of the Node object: a node that comes back under its name is another node.
    #[serde(rename = "nodeUID")]
    #[schemars(length(min = 1, max = 64))]
    pub node_uid: String,
    /// Instance of that node's agent; another instance reports `AgentRestarted`.
    #[schemars(length(min = 1, max = 64))]
    pub instance: String,
    /// Name of the destination in the job.
    #[schemars(length(min = 1, max = 63))]
    pub destination: String,
    /// Where it is put.
    #[serde(flatten)]
    pub place: Place<VolumeRef, TaskMemory>,
    /// In a chain: name of the task by which this node sends on what it receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub forward_to: Option<String>,
}
