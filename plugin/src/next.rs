//! What to do next about a job: from its conditions and the one table of reasons. Pure.

use jiff::Timestamp;
use nixl_transfer_crds::{
    Reason, TransferJob, WritePolicy,
    condition::{self, FAILED, READY, SUSPENDED},
    job::{
        TransferJobStatus,
        status::{DestinationState, Phase},
    },
    reason::Class,
};
use serde::Serialize;

use crate::render::span_of;

/// A job that nobody has looked at for so long has no operator.
const NOT_SEEN_SECONDS: i64 = 30;
/// Nodes that are named for one reason.
const MOST_NODES: usize = 4;

/// One thing that can be done, or known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// The reason that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Nodes that it is about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// What it means and what to do.
    pub text: String,
}

impl Advice {
    fn plain(text: impl Into<String>) -> Self {
        Self { reason: None, nodes: Vec::new(), text: text.into() }
    }

    /// As one sentence or more.
    pub fn sentence(&self) -> String {
        let Some(reason) = &self.reason else { return self.text.clone() };
        let shown = self.nodes[..self.nodes.len().min(MOST_NODES)].join(", ");
        let more = self.nodes.len().saturating_sub(MOST_NODES);
        let on = match (shown.is_empty(), more) {
            (true, _) => String::new(),
            (false, 0) => format!(" on {shown}"),
            (false, more) => format!(" on {shown} and {more} more"),
        };
        format!("{reason}{on}: {}", self.text)
    }
}

/// Everything that can be done about the job, the most useful first.
pub fn advice(job: &TransferJob, now: Timestamp) -> Vec<Advice> {
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let command = |verb: &str| {
        format!(
            "`kubectl transfer {verb} {name} -n {}`",
            job.metadata.namespace.as_deref().unwrap_or("default")
        )
    };
    if job.metadata.deletion_timestamp.is_some() {
        return vec![Advice::plain("It is being deleted; its agents end what they do.")];
    }
    let status = match &job.status {
        Some(status) if is_current(job) => status,
        _ => return vec![unseen(job, now)],
    };
    let mut advice = of_reasons(status);
    match status.phase {
        Some(Phase::Complete) if advice.is_empty() => advice.push(Advice::plain(format!(
            "Nothing: every destination holds the data. To move it again: {}.",
            command("rerun")
        ))),
        Some(Phase::Complete) => {}
        Some(Phase::Failed) => {
            let kept = job.spec.write_policy == WritePolicy::SkipIdentical;
            let kept = if kept { " What is there already is not sent again." } else { "" };
            advice.push(Advice::plain(format!("When the cause is gone: {}.{kept}", command("rerun"))));
        }
        Some(Phase::Suspended) if condition::is_true(&status.conditions, SUSPENDED) => {
            advice.push(Advice::plain(format!("To go on from what is there: {}.", command("resume"))));
        }
        _ if advice.is_empty() => {
            advice.push(Advice::plain(format!("Nothing. To follow it: {}.", command("watch"))))
        }
        _ => advice.push(Advice::plain(format!("To follow it: {}.", command("watch")))),
    }
    advice.extend(fallback(status));
    advice
}

/// Whether the status is about the spec that stands.
pub fn is_current(job: &TransferJob) -> bool {
    let status = job.status.as_ref();
    status
        .is_some_and(|status| status.observed_generation == job.metadata.generation && status.phase.is_some())
}

/// Whether the run is over, and how: `Some(true)` is complete.
pub fn ended(job: &TransferJob) -> Option<bool> {
    let status = job.status.as_ref().filter(|_| is_current(job))?;
    // A run that the trigger has asked for, and that has not begun, is not over.
    let asked = status.last_handled_trigger == job.spec.trigger;
    match status.phase {
        Some(Phase::Complete) if asked => Some(true),
        Some(Phase::Failed) if asked => Some(false),
        _ => None,
    }
}

fn unseen(job: &TransferJob, now: Timestamp) -> Advice {
    if let Some(manager) = job.spec.managed_by.as_ref().filter(|_| !job.spec.is_ours()) {
        return Advice::plain(format!(
            "It is carried out by {manager} (`spec.managedBy`), not by nixl-transfer's operator."
        ));
    }
    let since = job.metadata.creation_timestamp.as_ref().filter(|_| !job.is_seen()).map(|time| time.0);
    match since.filter(|since| now.duration_since(*since).as_secs() >= NOT_SEEN_SECONDS) {
        Some(since) => Advice::plain(format!(
            "No operator has looked at it for {}. Does it run? `kubectl get pods -A -l app.kubernetes.io/name=nixl-transfer`.",
            span_of(since, now)
        )),
        None => Advice::plain("The operator has not seen its latest change yet; look again in a moment."),
    }
}

/// Reasons of nodes that are in trouble, and of the job, each once, with the nodes that it is about.
fn of_reasons(status: &TransferJobStatus) -> Vec<Advice> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut add = |reason: &str, node: Option<&str>| {
        let at = found.iter().position(|(name, _)| name == reason).unwrap_or_else(|| {
            found.push((reason.to_owned(), Vec::new()));
            found.len() - 1
        });
        let nodes = &mut found[at].1;
        if let Some(node) = node.filter(|node| !nodes.iter().any(|known| known == node)) {
            nodes.push(node.to_owned());
        }
    };
    for destination in &status.destinations {
        let Some(reason) = &destination.reason else { continue };
        if destination.state == DestinationState::Succeeded && reason != Reason::Unverified.as_str() {
            continue;
        }
        add(reason, Some(&destination.node));
        for cause in causes(destination.message.as_deref().unwrap_or_default()) {
            add(cause, Some(&destination.node));
        }
    }
    let of_job =
        condition::find(&status.conditions, FAILED).or_else(|| condition::find(&status.conditions, READY));
    if let Some(of_job) = of_job {
        // That it runs, or is done, is said by the phase.
        if Reason::parse(&of_job.reason).is_none_or(|reason| reason.class() != Class::Progress) {
            add(&of_job.reason, None);
        }
        causes(&of_job.message).into_iter().for_each(|cause| add(cause, None));
    }
    found.into_iter().map(|(reason, nodes)| explained(reason, nodes)).collect()
}

/// What a message names as the cause: `…, the last with IoError: node b: …`.
fn causes(message: &str) -> Vec<&'static str> {
    let words = message.split_whitespace().filter_map(|word| word.strip_suffix(':'));
    words
        .filter_map(Reason::parse)
        .filter(|reason| !matches!(reason.class(), Class::Progress | Class::EventOnly))
        .map(Reason::as_str)
        .collect()
}

fn explained(reason: String, nodes: Vec<String>) -> Advice {
    let text = match Reason::parse(&reason).map(Reason::entry) {
        Some(entry) => format!("{} {}", entry.meaning, entry.remedy),
        None => "This version of the plugin does not know it; read its message.".into(),
    };
    Advice { reason: Some(reason), nodes, text }
}

fn fallback(status: &TransferJobStatus) -> Option<Advice> {
    let reason = status.transport.as_ref()?.fallback_reason.clone()?;
    Some(explained(reason, Vec::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(generation: i64, trigger: &str, status: Option<Value>) -> TransferJob {
        let mut job = json!({
            "metadata": {"name": "j", "namespace": "ml", "generation": generation, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"source": {"memory": {"name": "x"}}, "destinations": [], "trigger": trigger},
        });
        if let Some(status) = status {
            job["status"] = status;
        }
        serde_json::from_value(job).unwrap()
    }

    fn said(job: &TransferJob) -> Vec<String> {
        advice(job, "2026-01-01T00:01:00Z".parse().unwrap()).iter().map(Advice::sentence).collect()
    }

    fn condition(kind: &str, reason: &str, message: &str) -> Value {
        json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn it_is_over_only_when_what_was_asked_for_is() {
        let status =
            |phase: &str| json!({"observedGeneration": 2, "phase": phase, "lastHandledTrigger": "a"});
        assert_eq!(ended(&job(2, "a", Some(status("Complete")))), Some(true));
        assert_eq!(ended(&job(2, "a", Some(status("Failed")))), Some(false));
        assert_eq!(ended(&job(2, "a", Some(status("Retrying")))), None);
        assert_eq!(ended(&job(3, "a", Some(status("Complete")))), None, "an older spec");
        assert_eq!(ended(&job(2, "b", Some(status("Complete")))), None, "a run that has not begun");
        assert_eq!(ended(&job(1, "", None)), None);
    }

    #[test]
    fn every_reason_is_explained_once_with_its_nodes() {
        let failed = |node: &str| {
            json!({"name": "d", "node": node, "state": "Failed", "attempt": 3, "bytesDone": 0, "reason": "BackoffLimitExceeded",
                   "message": format!("4 attempts failed, the last with InsufficientSpace: node {node}: full")})
        };
        let conditions = [condition(
            "Failed",
            "BackoffLimitExceeded",
            "5 of 6 nodes failed; d on b: 4 attempts failed, the last with InsufficientSpace: x",
        )];
        let nodes = ["b", "c", "d", "e", "f"].map(failed);
        let status = json!({
            "observedGeneration": 1, "phase": "Failed", "conditions": conditions,
            "destinations": nodes,
            "transport": {"backend": "UCX", "network": "tcp", "fallbackReason": "LinkDown"},
        });
        let said = said(&job(1, "", Some(status)));
        assert_eq!(said.len(), 4, "{said:#?}");
        assert!(
            said[0].starts_with("BackoffLimitExceeded on b, c, d, e and 1 more: Every attempt"),
            "{said:#?}"
        );
        assert!(
            said[1].starts_with("InsufficientSpace on b, c, d, e and 1 more: ")
                && said[1].contains("Free space"),
            "{said:#?}"
        );
        assert!(said[2].contains("`kubectl transfer rerun j -n ml`"), "{said:#?}");
        assert!(said[3].starts_with("LinkDown: The RDMA port is down. Repair the link."), "{said:#?}");
    }

    #[test]
    fn every_phase_has_something_to_say() {
        let of = |phase: &str, conditions: Value| {
            said(&job(
                1,
                "",
                Some(json!({"observedGeneration": 1, "phase": phase, "conditions": conditions})),
            ))
            .join("\n")
        };
        assert!(of("Complete", json!([condition("Ready", "Succeeded", "")])).starts_with("Nothing"));
        assert!(of("Complete", json!([condition("Ready", "Unverified", "")])).starts_with("Nothing"));
        assert!(
            of("Suspended", json!([condition("Suspended", "Suspended", "")])).contains("transfer resume j")
        );
        assert!(of("Suspended", json!([])).contains("transfer watch j"), "it is still being ended");
        assert!(
            of("Transferring", json!([condition("Ready", "Transferring", "")]))
                .starts_with("Nothing. To follow")
        );
        assert!(
            of(
                "Pending",
                json!([condition("Ready", "Pending", "0 of 1; d: NodeNotFound: there is no node x")])
            )
            .contains("wait for the node")
        );
        assert!(of("Pending", json!([condition("Ready", "FromTheFuture", "")])).contains("does not know it"));
        assert!(said(&job(1, "", None))[0].contains("No operator has looked at it for 60s"));
        let old = Some(json!({"observedGeneration": 1, "phase": "Complete"}));
        assert!(said(&job(2, "", old))[0].contains("in a moment"));
    }
}
