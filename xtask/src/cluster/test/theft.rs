//! Somebody has an agent's token, out of its pod: what it opens, and what not.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use devcluster::Kubectl;
use serde_json::{Value, json};

use super::ask::{self, SOON, get, items, until};
use super::work::{delete_agent, volume};
use super::{Cluster, NAMESPACE, reach, tenants};
use crate::cluster::certificates::{ADMIN, write_secret};
use crate::cluster::node;
use crate::demo::dataset;
use crate::paths;
use crate::progress::Step;

pub const SPACE: &str = "default";
/// Words of whoever refuses.
const BY_RBAC: &str = "cannot";
const BY_POLICY: &str = "ValidatingAdmissionPolicy";

/// The token of the second node's agent, while a hop runs from the first node to the third.
pub fn opens_nothing(cluster: &Cluster) -> Result<()> {
    let thief = thief(cluster, &node::name(1))?;
    let (own, other) = (node::name(1), node::name(2));
    slow_job(cluster, &node::name(0), &other)?;
    let task = running_task(cluster)?;
    reach::holds_no_token(cluster, &other)?;
    let step = Step::start("a stolen token of an agent");
    let asked: [&[&str]; 8] = [
        &["get", "secrets", "--all-namespaces"],
        &["get", "secrets", "--namespace", NAMESPACE],
        &["get", "configmaps", "--namespace", NAMESPACE],
        &["get", "pods", "--all-namespaces"],
        &["create", "token", "nixl-transfer-operator", "--namespace", NAMESPACE],
        &["delete", "node", &other],
        &["delete", "transfertask", &task, "--namespace", SPACE],
        &["delete", "transferjob", "slow", "--namespace", SPACE],
    ];
    for arguments in asked {
        is_refused(&thief, arguments, None, BY_RBAC)?;
    }
    let written = changes(&task, &own, &other);
    for (document, status, by) in &written {
        is_refused(&thief, &apply(*status), Some(&document.to_string()), by)?;
    }
    // It is a token all the same, and its own TransferNode is its own.
    let version = get(&thief, &["transfernode", &own])?["status"]["agentVersion"].clone();
    let mine = object("TransferNode", &own, None, json!({"status": {"agentVersion": version}}));
    thief.run_with_input(&apply(true), Some(&mine.to_string()))?;
    cluster.kubectl.run(&["delete", "transferjob", "slow", "--namespace", SPACE, "--wait=false"])?;
    step.done(&format!("{} attempts are refused; its own node is not", asked.len() + written.len()));
    dies_with_its_pod(cluster, &thief, &own)
}

/// The token is bound to the agent's pod.
fn dies_with_its_pod(cluster: &Cluster, thief: &Kubectl, node: &str) -> Result<()> {
    let step = Step::start("the token after its pod");
    delete_agent(&cluster.kubectl, node)?;
    until(SOON, || match thief.run(&["get", "transfernode", node]) {
        Err(error) if says(&error, "Unauthorized") || says(&error, "logged in") => Ok(()),
        Err(error) => Err(error),
        Ok(_) => bail!("it is still good"),
    })?;
    step.done("is good for nothing");
    Ok(())
}

/// Objects, whether it is their status that is written, and what refuses that.
fn changes(task: &str, own: &str, other: &str) -> Vec<(Value, bool, &'static str)> {
    let lie = json!({"state": "Failed", "reason": "IoError", "message": "not true"});
    let task = |fields| object("TransferTask", task, Some(SPACE), fields);
    vec![
        (
            object(
                "Pod",
                "thief",
                Some(NAMESPACE),
                json!({"spec": {"containers": [{"name": "thief", "image": "thief"}]}}),
            ),
            false,
            BY_RBAC,
        ),
        (object("Node", own, None, json!({"metadata": {"labels": {"role": "thief"}}})), false, BY_RBAC),
        (object("TransferJob", "slow", Some(SPACE), json!({"spec": {"suspend": true}})), false, BY_RBAC),
        (task(json!({"spec": {"cancel": true}})), false, BY_RBAC),
        (task(json!({"status": {"source": lie}})), true, BY_POLICY),
        (task(json!({"status": {"target": lie}})), true, BY_POLICY),
        (object("TransferNode", other, None, json!({"status": {"agentVersion": "0"}})), true, BY_POLICY),
        (object("TransferNode", own, None, json!({"spec": {"unschedulable": true}})), false, BY_RBAC),
        (
            object("Lease", other, Some(NAMESPACE), json!({"spec": {"holderIdentity": "thief"}})),
            false,
            BY_POLICY,
        ),
        (
            object(
                "Lease",
                "nixl-transfer-operator",
                Some(NAMESPACE),
                json!({"spec": {"holderIdentity": "thief"}}),
            ),
            false,
            BY_POLICY,
        ),
    ]
}

fn object(kind: &str, name: &str, space: Option<&str>, fields: Value) -> Value {
    let version = match kind {
        "Pod" | "Node" => "v1",
        "Lease" => "coordination.k8s.io/v1",
        _ => "nixl-transfer.io/v1alpha1",
    };
    let mut object = fields;
    object["apiVersion"] = json!(version);
    object["kind"] = json!(kind);
    object["metadata"]["name"] = json!(name);
    if let Some(space) = space {
        object["metadata"]["namespace"] = json!(space);
    }
    object
}

/// One PATCH, where `kubectl patch` would first GET, and be refused that.
fn apply(status: bool) -> Vec<&'static str> {
    let words = ["apply", "--server-side", "--force-conflicts", "--field-manager=thief", "--filename=-"];
    words.into_iter().chain(status.then_some("--subresource=status")).collect()
}

fn is_refused(thief: &Kubectl, arguments: &[&str], input: Option<&str>, by: &str) -> Result<()> {
    let what = format!("{} {}", arguments.join(" "), input.unwrap_or_default());
    match thief.run_with_input(arguments, input) {
        Ok(said) => bail!("a stolen token can {what}: {said}"),
        Err(error) => {
            ensure!(says(&error, "orbidden") && says(&error, by), "{what} fails otherwise: {error:#}")
        }
    }
    Ok(())
}

fn says(error: &anyhow::Error, word: &str) -> bool {
    format!("{error:#}").contains(word)
}

/// kubectl with that token and nothing else.
fn thief(cluster: &Cluster, node: &str) -> Result<Kubectl> {
    let token = reach::token(cluster, node)?;
    let text = fs::read_to_string(cluster.place.kubeconfig(ADMIN))?;
    let mut config: Value = serde_json::from_str(&text)?;
    config["users"][0]["user"] = json!({"token": token});
    let file: PathBuf = cluster.place.kubeconfig("thief");
    write_secret(&file, &config.to_string())?;
    Ok(Kubectl::new(&paths::tools().join("bin/kubectl"), &file, &cluster.place.path().join("thief-cache")))
}

fn slow_job(cluster: &Cluster, from: &str, to: &str) -> Result<()> {
    let source = volume(cluster.place, from);
    dataset::write_files(&source, [("slow".to_owned(), 32 << 20)])?;
    let job = tenants::job("slow", SPACE, (from, "data", "slow"), (to, "data"));
    ask::apply(&cluster.kubectl, &[job])
}

fn running_task(cluster: &Cluster) -> Result<String> {
    until(SOON, || {
        let tasks = get(&cluster.kubectl, &["transfertasks", "--namespace", SPACE])?;
        let active = items(&tasks).find(|task| task["status"]["target"]["state"] == "Active");
        let name = active.and_then(|task| task["metadata"]["name"].as_str());
        name.map(str::to_owned).context("no task is active")
    })
}
