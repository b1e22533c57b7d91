//! TransferJob: what a user applies. Fields, bounds and rules; the status is in `status`. No behaviour but the
//! distinction between what is moved and how.

pub mod status;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{
    endpoint::{Destination, Source},
    names,
    policy::{Integrity, RerunPolicy, Transport, WritePolicy},
};
pub use status::TransferJobStatus;

/// A TransferJob moves one source to one or more destinations.
///
/// The spec is mutable. A change of what is moved (`source`, `destinations`, `integrity`, `writePolicy`) or of
/// `trigger` cancels the run under way and starts the next one; a change of anything else applies to the run under
/// way from its next attempt on. `rerunPolicy` leaves new runs to `trigger` alone.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "nixl-transfer.io",
    version = "v1alpha1",
    kind = "TransferJob",
    plural = "transferjobs",
    shortname = "tj",
    category = "nixl",
    namespaced,
    status = "TransferJobStatus",
    derive = "PartialEq",
    doc = "A TransferJob moves a file or a directory from one node to one or more nodes with NVIDIA NIXL, verified and retried.",
    selectable = ".status.phase",
    validation = Rule::new("size(self.metadata.name) <= 52").message("metadata.name must be at most 52 characters: names of tasks are derived from it"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress.summary"),
    printcolumn(name = "Rate", type_ = "string", json_path = ".status.progress.rate"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "From", type_ = "string", json_path = ".status.source.node", priority = 1),
    printcolumn(name = "To", type_ = "string", json_path = ".status.destinations[*].node", priority = 1),
    printcolumn(name = "Transport", type_ = "string", json_path = ".status.transport.network", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.rerunPolicy != 'Never' || (self.source == oldSelf.source && self.destinations == oldSelf.destinations)").message("source and destinations are immutable while rerunPolicy is Never: apply another job, or set rerunPolicy to OnSpecChange"),
    validation = Rule::new("has(self.managedBy) == has(oldSelf.managedBy) && (!has(self.managedBy) || self.managedBy == oldSelf.managedBy)").message("managedBy is immutable: delete the job and apply it again"),
    validation = Rule::new("!self.labelNodes || self.destinations.all(it, has(it.volume))").message("labelNodes is for destinations with a volume: memory goes with whoever holds it, and the label would stay")
)]
pub struct TransferJobSpec {
    /// What is moved, and from where.
    pub source: Source,
    /// Where it goes: 1 to 64 entries, each with a name of its own, each matching one or many nodes.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub destinations: Vec<Destination>,
    /// Keeps serving the nodes that match later, and those that come back: a node is told by its UID. `Ready` is False until they
    /// have their copies; `Complete`, once True, stays. A node that leaves is no failure, and where no node matches the job is
    /// Ready. What had to be given up on a node does not keep others from being served. Such a job never finishes: it has no
    /// TTL, and `activeDeadlineSeconds` is for the time before it is Complete.
    #[serde(default)]
    pub follow: bool,
    /// Labels the nodes that hold the data, so that pods can be scheduled there: `data.nixl-transfer.io/<namespace>.<name>=ready`.
    /// Where `<namespace>.<name>` is longer than 63 characters, it is its first 46, a dash and 16 digits of a hash;
    /// `status.nodeLabel` has the key. The label goes when the job is deleted or begins another run. Where the administrator does
    /// not allow it, the job fails with `InvalidSpec`.
    #[serde(default)]
    pub label_nodes: bool,
    /// How the bytes travel.
    #[serde(default)]
    pub transport: Transport,
    /// How the content is proven.
    #[serde(default)]
    pub integrity: Integrity,
    /// What happens to destination files that exist.
    #[serde(default)]
    pub write_policy: WritePolicy,
    /// Stops the run, and all its clocks, until it is false again. Files that were committed stay.
    #[serde(default)]
    pub suspend: bool,
    /// Jobs of a higher priority go first where the transfer slots of a node are taken; among equals, those with the fewest
    /// hops under way, then the oldest. What is under way is never ended for it.
    #[serde(default)]
    #[schemars(range(min = -1_000_000_000, max = 1_000_000_000))]
    pub priority: i32,
    /// Retries of a hop after its first attempt, with a pause of 10 s that doubles up to 6 min.
    #[serde(default = "default_backoff_limit")]
    #[schemars(range(min = 0, max = 100))]
    pub backoff_limit: i32,
    /// Seconds that a hop may wait for a node, an agent or a lock on its destination.
    #[serde(default = "default_pending_deadline")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub pending_deadline_seconds: i64,
    /// Seconds that a moving hop may go without moving a byte.
    #[serde(default = "default_progress_deadline")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub progress_deadline_seconds: i64,
    /// Seconds that a run as a whole may take; absent means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub active_deadline_seconds: Option<i64>,
    /// Seconds from the job's end, Complete or Failed, to its deletion: 0 is at once, absent is never. A job that Argo CD,
    /// Flux or Helm tracks stays (event `TTLIgnored`): they would make it again, and it would run again. Hooks of theirs
    /// are deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i64>,
    /// Opaque; a change starts a new run. This is how a run is repeated from Git.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub trigger: String,
    /// What makes the job run again. With `Never`, `source` and `destinations` are immutable, and a change of `integrity` or
    /// `writePolicy` starts no run and applies from the next attempt on. Back at `OnSpecChange`, what has changed meanwhile starts one.
    #[serde(default)]
    pub rerun_policy: RerunPolicy,
    /// Who carries the job out. Absent or `nixl-transfer.io/operator`: the operator; with another value it does nothing about the
    /// job and writes nothing to it. A domain, a slash and a name; immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 3, max = 63),
        regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
    )]
    pub managed_by: Option<String>,
}

fn default_backoff_limit() -> i32 {
    3
}

fn default_pending_deadline() -> i64 {
    600
}

fn default_progress_deadline() -> i64 {
    120
}

impl TransferJobSpec {
    /// A hash of what is moved: of where from and where to, and of how. A change of it needs a new run, see `needs_run`; a change
    /// of anything else does not.
    pub fn moved_hash(&self) -> String {
        let hash = |part: serde_json::Value| xxhash_rust::xxh3::xxh3_64(part.to_string().as_bytes());
        // The API server compares the list without its order, as it is one of entries by name.
        let mut destinations: Vec<_> = self.destinations.iter().collect();
        destinations.sort_by(|a, b| a.name.cmp(&b.name));
        let ends = hash(serde_json::json!([self.source, destinations]));
        let how = hash(serde_json::json!([self.integrity, self.write_policy]));
        format!("{ends:016x}-{how:016x}")
    }

    /// Whether the spec asks for another run than one that moved what that hash stands for.
    pub fn needs_run(&self, moved: &str) -> bool {
        let hash = self.moved_hash();
        let ends = |hash: &str| hash.split_once('-').map(|(ends, _)| ends.to_owned());
        match self.rerun_policy {
            RerunPolicy::OnSpecChange => hash != moved,
            // Ends that were changed just before the policy was are moved all the same.
            RerunPolicy::Never => ends(&hash) != ends(moved),
        }
    }

    /// Whether it is this operator that carries the job out.
    pub fn is_ours(&self) -> bool {
        self.managed_by.as_deref().is_none_or(|manager| manager == names::OPERATOR)
    }
}

impl TransferJob {
    /// Whether an operator has looked at it once: the API server gives it a status before that.
    pub fn is_seen(&self) -> bool {
        self.status.as_ref().and_then(|status| status.observed_generation).is_some_and(|seen| seen >= 0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(destinations: &[&str]) -> TransferJobSpec {
        let place =
            |name: &&str| json!({"name": name, "node": {"name": name}, "volume": {"name": "v", "path": "p"}});
        let destinations: Vec<_> = destinations.iter().map(place).collect();
        serde_json::from_value(json!({
            "source": {"node": {"name": "a"}, "volume": {"name": "v", "path": "p"}}, "destinations": destinations,
            "rerunPolicy": "Never",
        }))
        .unwrap()
    }

    #[test]
    fn the_order_of_destinations_is_nothing_that_moves() {
        let moved = spec(&["b", "c"]).moved_hash();
        assert!(!spec(&["c", "b"]).needs_run(&moved));
        assert!(spec(&["c", "d"]).needs_run(&moved));
        let other = TransferJobSpec { write_policy: WritePolicy::Overwrite, ..spec(&["b", "c"]) };
        assert!(!other.needs_run(&moved));
        assert!(TransferJobSpec { rerun_policy: RerunPolicy::OnSpecChange, ..other }.needs_run(&moved));
    }

    #[test]
    fn a_job_is_seen_when_an_operator_has_written_its_status() {
        let job = |status| TransferJob { status, ..TransferJob::new("j", spec(&["b"])) };
        let status = |seen| Some(TransferJobStatus { observed_generation: seen, ..Default::default() });
        assert!(!job(None).is_seen() && !job(status(None)).is_seen() && !job(status(Some(-1))).is_seen());
        assert!(job(status(Some(1))).is_seen());
    }
}
