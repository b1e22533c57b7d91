//! What `doctor` finds: is it installed, do the agents work, what would limit a transfer. Pure: from objects to findings, each
//! with its reason from the one table where it has one, and with what to do.

mod limits;
mod node;

use std::collections::BTreeMap;

use jiff::Timestamp;
use nixl_transfer_crds::{Reason, TransferJob, TransferNode, names::LEASE_GONE_SECONDS};
use serde::{Deserialize, Serialize};

pub(crate) use limits::spoken as spoken_link;
pub use node::NodeFacts;

use crate::{next, render::span_of};

/// A job that nobody has looked at for so long has no operator.
const NOT_SEEN_SECONDS: i64 = 30;
/// Name of the operators' Lease.
pub const OPERATOR_LEASE: &str = "nixl-transfer-operator";

/// What was read from the API server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Seen {
    /// Version of the API server.
    pub server: String,
    /// The namespace whose jobs are asked about.
    pub namespace: String,
    /// The agents' words.
    pub nodes: Vec<TransferNode>,
    /// Names of the core Nodes, if they may be read.
    pub names: Option<Vec<String>>,
    /// When each Lease was renewed, if they may be read.
    pub leases: Option<BTreeMap<String, Option<Timestamp>>>,
    /// Jobs of the namespace.
    pub jobs: Vec<TransferJob>,
    /// What the caller may do, as the API server says.
    pub rights: Vec<Right>,
}

/// One thing that the caller may do, or may not.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Right {
    /// As it follows "you may".
    pub what: String,
    /// Whether.
    pub allowed: bool,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Grade {
    /// Transfers fail.
    Broken,
    /// Transfers are slower than they could be, or some fail.
    Poor,
    /// It could not be seen.
    Unseen,
    /// As it should be.
    Good,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub grade: Grade,
    /// The reason that a transfer would give for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Nodes that it is about; none for the cluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// What it is, and what to do.
    pub text: String,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of the API server.
    pub server: String,
    /// One entry for each node.
    pub nodes: Vec<NodeFacts>,
    /// The worst first.
    pub findings: Vec<Finding>,
    /// What would limit a transfer, if all else is well.
    pub limits: Vec<String>,
}

impl Report {
    /// Whether transfers fail.
    pub fn is_broken(&self) -> bool {
        self.findings.iter().any(|finding| finding.grade == Grade::Broken)
    }
}

impl Finding {
    fn new(grade: Grade, text: impl Into<String>) -> Self {
        Self { grade, reason: None, nodes: Vec::new(), text: text.into() }
    }

    /// With the reason's own meaning and remedy.
    fn explained(grade: Grade, reason: Reason) -> Self {
        let entry = reason.entry();
        Self::because(grade, reason, format!("{} {}", entry.meaning, entry.remedy))
    }

    fn because(grade: Grade, reason: Reason, text: impl Into<String>) -> Self {
        Self { reason: Some(reason.as_str()), ..Self::new(grade, text) }
    }

    fn on(mut self, node: &str) -> Self {
        self.nodes = vec![node.into()];
        self
    }
}

/// Looks at everything.
pub fn diagnose(seen: &Seen, now: Timestamp) -> Report {
    let nodes: Vec<NodeFacts> = seen.nodes.iter().map(|node| NodeFacts::of(node, seen, now)).collect();
    let mut findings = vec![Finding::new(Grade::Good, "The API server answers, and the CRDs are installed.")];
    findings.push(operator(seen, now));
    findings.extend(agents(seen));
    findings.extend(rights(seen));
    findings.extend(limits::versions(&nodes));
    for node in &seen.nodes {
        findings.extend(node::findings(node, seen, now));
    }
    Report { server: seen.server.clone(), limits: limits::limits(&nodes), nodes, findings: merged(findings) }
}

/// Whether somebody plans: by the Lease where it may be read, and by jobs that nobody has looked at.
fn operator(seen: &Seen, now: Timestamp) -> Finding {
    let look = "look at its pods: `kubectl get pods -A -l app.kubernetes.io/name=nixl-transfer`.";
    let unseen = seen.jobs.iter().find_map(|job| {
        let since = job.metadata.creation_timestamp.as_ref()?.0;
        let is_old = now.duration_since(since).as_secs() >= NOT_SEEN_SECONDS;
        (!job.is_seen() && job.spec.is_ours() && is_old)
            .then(|| (job.metadata.name.clone().unwrap_or_default(), since))
    });
    if let Some((name, since)) = unseen {
        let text = format!("No operator has looked at job {name} for {}; {look}", span_of(since, now));
        return Finding::new(Grade::Broken, text);
    }
    match seen.leases.as_ref().map(|leases| leases.get(OPERATOR_LEASE).copied().flatten()) {
        Some(Some(renewed)) if is_gone(renewed, now) => {
            let since = span_of(renewed, now);
            Finding::new(Grade::Broken, format!("No operator has renewed its Lease for {since}; {look}"))
        }
        Some(Some(_)) => Finding::new(Grade::Good, "An operator leads."),
        _ if seen.jobs.iter().any(next::is_current) => {
            Finding::new(Grade::Good, "An operator looks at jobs.")
        }
        _ => Finding::new(
            Grade::Unseen,
            "Whether an operator runs cannot be seen: there is no job, and its Lease cannot be read.",
        ),
    }
}

fn is_gone(renewed: Timestamp, now: Timestamp) -> bool {
    now.duration_since(renewed).as_secs() >= i64::from(LEASE_GONE_SECONDS)
}

fn agents(seen: &Seen) -> Vec<Finding> {
    let mut found = Vec::new();
    if seen.nodes.is_empty() {
        found.push(Finding::new(
            Grade::Broken,
            "No node has an agent: there is no TransferNode. Look at the DaemonSet: \
             `kubectl get ds,pods -A -l app.kubernetes.io/name=nixl-transfer`.",
        ));
    }
    if seen.leases.is_none() {
        found.push(Finding::new(
            Grade::Unseen,
            "Whether agents are alive cannot be seen: no Lease of theirs can be read (--system-namespace says where they are). An \
             agent that has died stays Ready above; jobs name it as AgentNotReady.",
        ));
    }
    let Some(names) = &seen.names else { return found };
    let without = names.iter().filter(|name| {
        let is_its = |node: &&TransferNode| node.metadata.name.as_ref() == Some(name);
        !seen.nodes.iter().any(|node| is_its(&node))
    });
    found.extend(without.map(|name| {
        let text = "It has no agent, and can neither send nor receive. If it should, look at the DaemonSet's node selector and \
                    tolerations.";
        Finding::because(Grade::Poor, Reason::AgentNotReady, text).on(name)
    }));
    found
}

fn rights(seen: &Seen) -> Option<Finding> {
    let without: Vec<&str> =
        seen.rights.iter().filter(|right| !right.allowed).map(|right| right.what.as_str()).collect();
    (!without.is_empty()).then(|| {
        let text = format!(
            "In namespace {} you may not {}. If you should, ask an administrator for the role `edit`, which nixl-transfer \
             extends.",
            seen.namespace,
            without.join(", nor ")
        );
        Finding::new(Grade::Poor, text)
    })
}

/// The same thing on many nodes is one finding; the worst come first.
fn merged(findings: Vec<Finding>) -> Vec<Finding> {
    let mut merged: Vec<Finding> = Vec::new();
    for finding in findings {
        let same = |it: &&mut Finding| {
            (it.grade, it.reason, &it.text) == (finding.grade, finding.reason, &finding.text)
        };
        match merged.iter_mut().find(same) {
            Some(known) => known.nodes.extend(finding.nodes),
            None => merged.push(finding),
        }
    }
    merged.sort_by_key(|finding| finding.grade);
    merged
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(seen: serde_json::Value) -> Report {
        diagnose(&serde_json::from_value(seen).unwrap(), "2026-01-01T00:10:00Z".parse().unwrap())
    }

    fn has(report: &Report, grade: Grade, text: &str) -> bool {
        report.findings.iter().any(|finding| finding.grade == grade && finding.text.contains(text))
    }

    #[test]
    fn an_operator_that_does_not_work_is_found() {
        let spec = json!({"source": {"memory": {"name": "x"}}, "destinations": []});
        let job = |at: &str, status: Option<serde_json::Value>| {
            let mut job =
                json!({"metadata": {"name": "j", "creationTimestamp": at, "generation": 1}, "spec": spec});
            if let Some(status) = status {
                job["status"] = status;
            }
            job
        };
        let lease = |at: &str| json!({"nixl-transfer-operator": at});
        let (new, old) = ("2026-01-01T00:09:55Z", "2026-01-01T00:00:00Z");
        let seen = json!({"observedGeneration": 1, "phase": "Complete"});
        let unseen = report(json!({"jobs": [job(old, None)]}));
        assert!(has(&unseen, Grade::Broken, "job j for 10m") && unseen.is_broken());
        assert!(has(&report(json!({"leases": lease(old)})), Grade::Broken, "renewed its Lease for 10m"));
        assert!(has(&report(json!({"leases": lease(new)})), Grade::Good, "An operator leads"));
        assert!(has(&report(json!({"jobs": [job(old, Some(seen))]})), Grade::Good, "looks at jobs"));
        assert!(has(&report(json!({"jobs": [job(new, None)]})), Grade::Unseen, "cannot be seen"));
    }

    #[test]
    fn nodes_without_agents_and_missing_rights_are_found() {
        let node = json!({"metadata": {"name": "a"}, "spec": {}});
        let report = report(json!({
            "namespace": "ml", "nodes": [node], "names": ["a", "b", "c"],
            "rights": [{"what": "create TransferJobs", "allowed": false}, {"what": "change TransferJobs", "allowed": false}],
        }));
        let without = report.findings.iter().find(|it| it.text.contains("It has no agent")).unwrap();
        assert_eq!(without.nodes, ["b", "c"]);
        assert!(has(
            &report,
            Grade::Poor,
            "In namespace ml you may not create TransferJobs, nor change TransferJobs"
        ));
        assert!(has(&report, Grade::Unseen, "no Lease of theirs"));
        let grades: Vec<Grade> = report.findings.iter().map(|it| it.grade).collect();
        assert!(grades.is_sorted(), "{grades:?}");
        assert!(has(&self::report(json!({})), Grade::Broken, "No node has an agent"));
    }
}
