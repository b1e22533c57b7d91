//! What is known about a hop. Three writers, each with a part of its own: the source's agent `source`, the target's
//! agent `target`, the operator `verdict`. Types, and the order of states.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of a TransferTask.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(oldSelf.source) || has(self.source)").message("the source's half, once there, is never removed"),
    validation = Rule::new("!has(oldSelf.target) || has(self.target)").message("the target's half, once there, is never removed"),
    validation = Rule::new("!has(oldSelf.verdict) || (has(self.verdict) && self.verdict == oldSelf.verdict)").message("a verdict is given once")
)]
pub struct TransferTaskStatus {
    /// Written by the agent of the source's node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceSide>,
    /// Written by the agent of the target's node. Its count and digest are the only truth about success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetSide>,
    /// Written by the operator when it ends the task for a reason that no agent could report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

/// How far one side of a hop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum SideState {
    /// Seen by the agent.
    Pending,
    /// A worker waits with registered memory; the metadata stands in the status.
    Prepared,
    /// Bytes move.
    Active,
    /// Done; for the target: every file is committed and its digest was equal.
    Succeeded,
    /// Given up, with a reason; the worker has exited.
    Failed,
    /// Ended on request; the worker has exited.
    Cancelled,
}

impl SideState {
    /// Whether the side is done, one way or the other. It then never changes again.
    pub fn is_terminal(self) -> bool {
        matches!(self, SideState::Succeeded | SideState::Failed | SideState::Cancelled)
    }
}

/// Which side of a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The sending one.
    Source,
    /// The receiving one.
    Target,
}

/// The four operations of nixl_connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum OperationKind {
    /// Active: writes into a remote Writable.
    Write,
    /// Passive: its memory is written by a remote Write.
    Writable,
}

/// Names of nixl_connect's OperationStatus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum OperationState {
    /// Initialised.
    #[serde(rename = "INIT")]
    Initialized,
    /// In progress.
    #[serde(rename = "PROC")]
    InProgress,
    /// Complete.
    #[serde(rename = "DONE")]
    Complete,
    /// Cancelled.
    #[serde(rename = "STOP")]
    Cancelled,
    /// Failed.
    #[serde(rename = "ERR")]
    Errored,
}

/// What a side does in the words of nixl_connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Operation {
    /// Which of the operations.
    pub kind: OperationKind,
    /// Its status.
    pub status: OperationState,
}

/// The rule of both halves: the place of a state in the order never falls, and a terminal one stays.
const FORWARD_ONLY: &str = "{'Pending': 0, 'Prepared': 1, 'Active': 2, 'Succeeded': 3, 'Failed': 3, 'Cancelled': 3}[oldSelf.state] < 3 ? {'Pending': 0, 'Prepared': 1, 'Active': 2, 'Succeeded': 3, 'Failed': 3, 'Cancelled': 3}[self.state] >= {'Pending': 0, 'Prepared': 1, 'Active': 2, 'Succeeded': 3, 'Failed': 3, 'Cancelled': 3}[oldSelf.state] : self.state == oldSelf.state";

/// The source's half.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(FORWARD_ONLY).message("a side's state only goes forward")
)]
pub struct SourceSide {
    /// How far it is.
    pub state: SideState,
    /// Agent metadata of the active side, encoded like `nixl_metadata`; a capability, removed when the side is
    /// terminal. At most 256 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub agent_metadata: Option<String>,
    /// What it does in the words of nixl_connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Whether this side's memory is of a GPU and its bytes were copied through pinned host memory, since NIXL does not move
    /// them by itself here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub staged: bool,
    /// Name of the worker, unique; the NIXL agent's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub worker: Option<String>,
    /// Why it failed, from the closed list of reasons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// What happened and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// When the state last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
}

/// The target's half.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(FORWARD_ONLY).message("a side's state only goes forward")
)]
pub struct TargetSide {
    /// How far it is.
    pub state: SideState,
    /// RdmaMetadata of the passive side, one JSON string exactly as nixl_connect writes it; a capability, removed when
    /// the side is terminal. At most 256 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub rdma_metadata: Option<String>,
    /// What it does in the words of nixl_connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Bytes that shall arrive, once the source has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub bytes_total: Option<i64>,
    /// Bytes that arrived and were verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub bytes_done: Option<i64>,
    /// Of `bytesDone`, those that an earlier attempt had made durable here, or that stood here already in a file with an
    /// equal digest: they were not sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub bytes_resumed: Option<i64>,
    /// Grows while something is compared instead of moved, here, at the source, or further down a chain: a sign of work,
    /// and no amount of anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub signs: Option<i64>,
    /// Regular files that shall arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub files_total: Option<i64>,
    /// Regular files that are in place: committed, or there already with an equal digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub files_done: Option<i64>,
    /// Of `filesDone`, those that were there already with an equal digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub files_skipped: Option<i64>,
    /// Chunks that arrived damaged and were sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub chunks_resent: Option<i64>,
    /// For a file the digest of its content, for a tree the digest of its sorted manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub digest: Option<String>,
    /// The transport really used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<TransportUsed>,
    /// Whether this side's memory is of a GPU and its bytes were copied through pinned host memory, since NIXL does not move
    /// them by itself here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub staged: bool,
    /// Name of the worker, unique; the NIXL agent's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub worker: Option<String>,
    /// Why it failed or waits, from the closed list of reasons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// What happened and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// When the state last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
}

impl TargetSide {
    /// A half that says nothing but its state.
    pub fn new(state: SideState) -> Self {
        Self {
            state,
            rdma_metadata: None,
            operation: None,
            bytes_total: None,
            bytes_done: None,
            bytes_resumed: None,
            signs: None,
            files_total: None,
            files_done: None,
            files_skipped: None,
            chunks_resent: None,
            digest: None,
            transport: None,
            staged: false,
            worker: None,
            reason: None,
            message: None,
            last_transition_time: None,
        }
    }
}

/// The transport that a hop really used.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransportUsed {
    /// NIXL backend.
    #[schemars(length(max = 32))]
    pub backend: String,
    /// Kind of network beneath it, for example `tcp`.
    #[schemars(length(max = 64))]
    pub network: String,
    /// Network devices that carried it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)))]
    pub devices: Vec<String>,
    /// Who moved the bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub direction: Option<String>,
    /// Ends whose memory is of a GPU and was copied through pinned host memory: `source`, `target`. In a job's status only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), inner(length(max = 16)))]
    pub staged: Vec<String>,
    /// How the receivers got their copies; in a job's status only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub fan_out: Option<String>,
    /// Why it is not the fastest network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub fallback_reason: Option<String>,
}

/// Why the operator ended a task that no agent could end.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct Verdict {
    /// From the closed list of reasons.
    #[schemars(length(min = 1, max = 64))]
    pub reason: String,
    /// What happened and what to do.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// When it was given.
    pub time: Time,
}
