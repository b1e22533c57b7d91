//! What the operator reports about a TransferJob. Written by the operator alone. Types only.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::task::status::TransportUsed;

/// How many destinations the status shows; the tasks are the whole record.
pub const MAX_DESTINATIONS_SHOWN: usize = 256;

/// The state of a TransferJob.
// The API server gives a job this status until the operator has seen it: to kstatus, which Helm and Flux wait by, an object without a
// status is done.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("default" = {"observedGeneration": -1}))]
pub struct TransferJobStatus {
    /// The generation of the spec that this status is about; -1 before the operator has seen the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of the run, counted from 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub run: i64,
    /// Hash of what this run moves.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub moved_hash: String,
    /// The value of `spec.trigger` that this run answers.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub last_handled_trigger: String,
    /// One word for people; programs read the conditions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Ready, Reconciling, Stalled, Complete, Failed, Suspended, as kstatus defines them. Abnormal ones are removed
    /// when they no longer hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The source that was chosen for this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<ChosenSource>,
    /// Nodes counted by what became of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,
    /// Bytes and files, summed over all nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The transport really used, as the agents reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<TransportUsed>,
    /// One entry per node, the failed ones first, at most 256.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub destinations: Vec<DestinationStatus>,
    /// When the run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the run ended, Complete or Failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Key of the label of the nodes that hold the data, with `spec.labelNodes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub node_label: Option<String>,
    /// Who tracks the job, and by which label or annotation, so that `spec.ttlSecondsAfterFinished` does nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub ttl_ignored: Option<String>,
    /// The job follows nodes. Once it does not any more, its end counts from then.
    #[serde(skip_serializing_if = "is_false")]
    pub following: bool,
    /// The clocks of the run; suspension stops them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<RunClock>,
}

/// What a job is doing, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Phase {
    /// Seen, or waiting for a node or an agent.
    Pending,
    /// Waiting for a transfer slot on a node.
    Queued,
    /// The agents take workers, open files and meet each other.
    Preparing,
    /// Bytes move.
    Transferring,
    /// A hop failed and waits for its next attempt.
    Retrying,
    /// Stopped by `spec.suspend`.
    Suspended,
    /// Every destination holds the data; each digest was equal.
    Complete,
    /// A destination was given up.
    Failed,
}

impl Phase {
    /// All phases, for metrics that show zeros too.
    pub const ALL: [Phase; 8] = [
        Phase::Pending,
        Phase::Queued,
        Phase::Preparing,
        Phase::Transferring,
        Phase::Retrying,
        Phase::Suspended,
        Phase::Complete,
        Phase::Failed,
    ];

    /// Whether the run is over.
    pub fn is_terminal(self) -> bool {
        matches!(self, Phase::Complete | Phase::Failed)
    }
}

/// The source of a run.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct ChosenSource {
    /// Name of the node that sends.
    #[schemars(length(max = 253))]
    pub node: String,
}

/// Nodes of a run, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct NodeCounts {
    /// Nodes that shall have the data.
    pub desired: i64,
    /// Nodes that have it, verified.
    pub succeeded: i64,
    /// Nodes with an attempt under way.
    pub active: i64,
    /// Nodes that were given up.
    pub failed: i64,
}

/// Progress of a run, summed over its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// Bytes that shall be at the destinations.
    pub bytes_total: i64,
    /// Bytes that are there.
    pub bytes_done: i64,
    /// Files that shall be at the destinations.
    pub files_total: i64,
    /// Files that are there under their names.
    pub files_done: i64,
    /// Bytes per second over the last reports.
    pub bytes_per_second: i64,
    /// For people: share of the bytes and of the nodes.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub summary: String,
    /// For people: the rate.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub rate: String,
}

/// What became of one node of a run.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DestinationStatus {
    /// Name of the destination in the spec.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Name of the node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// What became of it.
    pub state: DestinationState,
    /// The attempt this entry is about, counted from 0.
    pub attempt: i32,
    /// Bytes that are there.
    pub bytes_done: i64,
    /// The digest that source and destination agree on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub digest: Option<String>,
    /// Why it is not there, from the closed list of reasons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// What happened and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

/// What became of one node of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum DestinationState {
    /// Given up.
    Failed,
    /// Its last attempt failed; the next one will come.
    Retrying,
    /// An attempt is under way.
    Active,
    /// Waits for a node, an agent, a slot.
    Waiting,
    /// The data is there; the digests are equal.
    Succeeded,
}

/// The clocks of a run. They run from `since`; while the job is suspended `since` is absent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RunClock {
    /// Seconds that ran before the last suspension.
    pub ran_seconds: i64,
    /// When the clock was started or started again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

fn is_false(it: &bool) -> bool {
    !it
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}
