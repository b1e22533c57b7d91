//! Names that the parts of the system share: API group, labels, finalizer, field managers, and the derived name of a
//! TransferTask. Pure.

use xxhash_rust::xxh3::xxh3_64;

/// API group of every kind here; labels, annotations and finalizers use it as their prefix.
pub const GROUP: &str = "nixl-transfer.io";
/// The one served version.
pub const VERSION: &str = "v1alpha1";

/// Label of a task: name of its TransferJob.
pub const LABEL_JOB: &str = "nixl-transfer.io/job";
/// Label of a task: UID of its TransferJob, so that tasks of a deleted and re-created job are told apart.
pub const LABEL_JOB_UID: &str = "nixl-transfer.io/job-uid";
/// Label of a task: the run it belongs to.
pub const LABEL_RUN: &str = "nixl-transfer.io/run";
/// Label of a task: the destination's name in the job.
pub const LABEL_DESTINATION: &str = "nixl-transfer.io/destination";
/// Label of a task: its attempt, counted from 0 over the hop.
pub const LABEL_ATTEMPT: &str = "nixl-transfer.io/attempt";

/// Prefix of the labels of nodes that hold a job's data; nobody else's labels have it.
pub const NODE_LABEL_PREFIX: &str = "data.nixl-transfer.io/";
/// The value of these labels.
pub const NODE_LABEL_VALUE: &str = "ready";
/// How long the part of a label's key after the slash may be.
const MAX_LABEL_NAME: usize = 63;
/// How many characters of a longer one are kept before the hash.
const KEPT_IN_LABEL: usize = 46;

/// Finalizer of every TransferTask; the operator removes it when both agents are done with the task or gone.
pub const TASK_FINALIZER: &str = "nixl-transfer.io/task";

/// The operator, as jobs name who manages them.
pub const OPERATOR: &str = "nixl-transfer.io/operator";
/// Field manager of the operator.
pub const OPERATOR_MANAGER: &str = "nixl-transfer-operator";
/// Field manager of an agent for everything it writes about its node.
pub const AGENT_MANAGER: &str = "nixl-transfer-agent";
/// Namespace of the operator, the agents and their Leases unless configured otherwise.
pub const SYSTEM_NAMESPACE: &str = "nixl-transfer-system";

/// How long a job's name may be, in characters: names derived from it must fit the limits of Kubernetes.
pub const MAX_JOB_NAME: usize = 52;
/// How many characters of the job's name a task's name keeps.
const JOB_NAME_IN_TASK: usize = 40;

/// Directory at the root of a volume for partial files; no source or destination may lie in it.
pub const RESERVED_DIRECTORY: &str = ".nixl-transfer";

/// An agent renews its Lease this often.
pub const LEASE_RENEW_SECONDS: u32 = 10;
/// An agent stops committing when its last successful renewal is older than this (its own monotonic clock).
pub const FENCE_SECONDS: u32 = 40;
/// The operator takes an agent as gone when it has seen no change of the Lease for this long (its own clock).
pub const LEASE_GONE_SECONDS: u32 = 60;

/// The name of the task for one hop: the job's name, cut, and a hash of what makes the hop and attempt unique. The
/// same inputs always give the same name, so a task created twice is refused by the API server, not duplicated.
pub fn task_name(
    job: &str,
    job_uid: &str,
    run: i64,
    destination: &str,
    node_uid: &str,
    attempt: i32,
) -> String {
    let hash = xxh3_64(format!("{job_uid}\n{run}\n{destination}\n{node_uid}\n{attempt}").as_bytes());
    let kept: String = job.chars().take(JOB_NAME_IN_TASK).collect();
    format!("{}-{hash:016x}", kept.trim_end_matches(['-', '.']))
}

/// The key of the label of nodes that hold a job's data: `<namespace>.<name>` after the prefix; where that is longer than 63
/// characters, its first 46, a dash, and 16 hexadecimal digits of its XXH3 hash.
pub fn node_label(namespace: &str, job: &str) -> String {
    let name = format!("{namespace}.{job}");
    if name.len() <= MAX_LABEL_NAME {
        return format!("{NODE_LABEL_PREFIX}{name}");
    }
    let kept: String = name.chars().take(KEPT_IN_LABEL).collect();
    format!("{NODE_LABEL_PREFIX}{kept}-{:016x}", xxh3_64(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_labels_fit_and_are_distinct() {
        assert_eq!(node_label("ml", "llama"), "data.nixl-transfer.io/ml.llama");
        let (namespace, job) = ("n".repeat(63), "j".repeat(52));
        let name = |job: &str| node_label(&namespace, job)[NODE_LABEL_PREFIX.len()..].to_owned();
        assert_eq!(node_label(&"n".repeat(10), &job).len(), NODE_LABEL_PREFIX.len() + 63, "as it is");
        assert_eq!(name(&job).len(), MAX_LABEL_NAME);
        assert_ne!(name(&job), name(&"j".repeat(51)));
    }

    #[test]
    fn task_names_are_stable_distinct_and_short() {
        let name = |run, attempt| task_name(&"j".repeat(52), "uid", run, "decode", "node-uid", attempt);
        assert_eq!(name(1, 0), name(1, 0));
        assert_ne!(name(1, 0), name(2, 0));
        assert_ne!(name(1, 0), name(1, 1));
        assert!(name(1, 0).len() <= 63, "{}", name(1, 0));
        assert!(
            !task_name("a-----------------------------------------b", "u", 1, "d", "n", 0).contains("--")
        );
    }
}
