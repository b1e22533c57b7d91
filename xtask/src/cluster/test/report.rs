//! Everything that a cluster can say about a failure, on standard error. Changes nothing, and fails at nothing.

use devcluster::Kubectl;

use super::NAMESPACE;
use crate::cluster::record::Place;
use crate::cluster::up;

const QUESTIONS: &[(&str, &[&str])] = &[
    ("nodes and pods", &["get", "nodes,pods", "--all-namespaces", "--output=wide"]),
    ("events", &["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"]),
    ("pods of the chart", &["describe", "pods", "--namespace", NAMESPACE]),
    ("jobs", &["get", "transferjobs", "--all-namespaces", "--output=yaml"]),
    ("tasks, without what peers are told", &["get", "transfertasks", "--all-namespaces"]),
];

/// The last lines of each answer.
const LINES: usize = 80;

pub fn print(place: &Place) {
    let kubectl = up::kubectl(place);
    for (title, question) in QUESTIONS {
        answer(&kubectl, title, question);
    }
    let pods = kubectl.run(&["get", "pods", "--namespace", NAMESPACE, "--output=name"]).unwrap_or_default();
    for pod in pods.lines() {
        let logs = ["logs", "--namespace", NAMESPACE, pod, "--all-containers", "--tail=40"];
        answer(&kubectl, &format!("log of {pod}"), &logs);
    }
}

fn answer(kubectl: &Kubectl, title: &str, question: &[&str]) {
    let said = kubectl.run(question).unwrap_or_else(|error| format!("{error:#}"));
    let lines: Vec<&str> = said.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    eprintln!("── {title}\n{}", last.join("\n"));
}
