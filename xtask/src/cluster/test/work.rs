//! What a user does with an installed chart, through kubectl alone; files are looked at where the nodes keep them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use devcluster::Kubectl;
use serde_json::Value;

use super::NAMESPACE;
use super::chart::VOLUME;
use crate::cluster::node;
use crate::cluster::record::Place;
use crate::demo::compare::{pairs, same};
use crate::demo::dataset;
use crate::demo::jobs::{self, Key, has_ended};
use crate::progress::{Step, bytes};
use crate::{exec, interrupt, paths};

const SOON: Duration = Duration::from_secs(60);
const JOB_ENDS_WITHIN: Duration = Duration::from_secs(180);
const EXAMPLES: [&str; 2] = ["examples/one-to-many.yaml", "examples/one-file.yaml"];

/// Each agent says what its node has.
pub fn agents_report(kubectl: &Kubectl, nodes: usize) -> Result<()> {
    let step = Step::start("agents report their nodes");
    let all: BTreeSet<String> = node::names(nodes).into_iter().collect();
    let ready = || {
        let list = get(kubectl, &["transfernodes"])?;
        let ready = items(&list).filter(|node| is_true(node, "Ready"));
        let names: BTreeSet<String> =
            ready.filter_map(|node| Some(node["metadata"]["name"].as_str()?.to_owned())).collect();
        ensure!(names == all, "TransferNodes that are ready: {names:?}, of {all:?}");
        Ok(())
    };
    until(SOON, ready)?;
    step.done(&format!("{nodes} TransferNodes are ready"));
    Ok(())
}

/// The ways to look into a pod, which go through the API server to its kubelet.
pub fn logs_and_exec(kubectl: &Kubectl) -> Result<()> {
    let step = Step::start("kubectl logs and exec");
    let names = kubectl.run(&["get", "daemonset,deployment", "--namespace", NAMESPACE, "--output=name"])?;
    for name in names.lines() {
        let said =
            kubectl.run(&["logs", "--namespace", NAMESPACE, name, "--all-pods", "--all-containers"])?;
        ensure!(!said.trim().is_empty(), "{name} has logged nothing");
    }
    let agent = names.lines().find(|name| name.starts_with("daemonset")).context("there is no DaemonSet")?;
    let words = ["--container=control", "--", "/usr/bin/transfer-agent", "--version"];
    let said = long(kubectl, &[&["exec", "--namespace", NAMESPACE, agent][..], &words].concat())?;
    step.done(said.trim());
    Ok(())
}

/// The examples: a tree to every receiver, and one file.
pub fn jobs(place: &Place, kubectl: &Kubectl) -> Result<()> {
    let step = Step::start("writing the data set into the first node's volume");
    let written = dataset::write(&volume(place, &node::name(0)).join(dataset::TREE))?;
    step.done(&format!("{} files, {}", written.files, bytes(written.bytes)));
    let files: Vec<PathBuf> = EXAMPLES.iter().map(|example| paths::root().join(example)).collect();
    for key in jobs::apply(kubectl, &files)? {
        complete(place, kubectl, &key)?;
    }
    Ok(())
}

/// The pod of an operator is taken away; another one carries out the next run.
pub fn operators_may_go(place: &Place, kubectl: &Kubectl) -> Result<()> {
    let step = Step::start("deleting the operators' pods");
    let deployment = kubectl.run(&["get", "deployment", "--namespace", NAMESPACE, "--output=name"])?;
    let labels = get(kubectl, &["--namespace", NAMESPACE, deployment.trim()])?;
    let labels =
        labels["spec"]["selector"]["matchLabels"].as_object().context("a Deployment without selector")?;
    let selector: Vec<String> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or(""))).collect();
    let delete = ["delete", "pods", "--namespace", NAMESPACE, "--wait=false", "--selector"];
    kubectl.run(&[&delete[..], &[&selector.join(",")]].concat())?;
    step.done("");
    let key: Key = ("ml".to_owned(), "weights-to-node-b".to_owned());
    let change = r#"{"spec":{"destinations":[{"name":"node-b","node":{"name":"node-b"},"volume":{"name":"data","path":"again"}}]}}"#;
    kubectl.run(&[
        "patch",
        "--namespace",
        &key.0,
        "transferjob",
        &key.1,
        "--type=merge",
        "--patch",
        change,
    ])?;
    complete(place, kubectl, &key)
}

/// Uninstalling leaves what is the user's, and nothing that only the operator could remove.
pub fn nothing_is_left(kubectl: &Kubectl) -> Result<()> {
    let step = Step::start("what is left");
    let tasks = get(kubectl, &["transfertasks", "--all-namespaces"])?;
    ensure!(items(&tasks).next().is_none(), "TransferTasks are left: their finalizer holds their namespace");
    let pods = || {
        let pods = get(kubectl, &["pods", "--namespace", NAMESPACE])?;
        let names: Vec<&str> = items(&pods).filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
        ensure!(names.is_empty(), "pods are left: {names:?}");
        Ok(())
    };
    until(SOON, pods)?;
    long(kubectl, &["delete", "namespace", "ml", NAMESPACE])?;
    step.done("no task, no pod; the namespaces can be deleted");
    Ok(())
}

fn complete(place: &Place, kubectl: &Kubectl, key: &Key) -> Result<()> {
    let (namespace, name) = key;
    let mut step = Step::start(format!("job {namespace}/{name}"));
    let deadline = Instant::now() + JOB_ENDS_WITHIN;
    let job = loop {
        let job = get(kubectl, &["--namespace", namespace, "transferjob", name])?;
        if has_ended(&job) {
            break job;
        }
        let phase = job["status"]["phase"].as_str().unwrap_or("Pending");
        ensure!(
            Instant::now() < deadline,
            "{namespace}/{name} is {phase} after {} s",
            JOB_ENDS_WITHIN.as_secs()
        );
        interrupt::check()?;
        step.tick(phase);
        // Polled: kubectl's watch would have to be ended in the middle of a line.
        thread::sleep(Duration::from_millis(300));
    };
    if !is_true(&job, "Complete") {
        bail!("{namespace}/{name} failed: {:#}", job["status"]["conditions"]);
    }
    let pairs = pairs(&job, |node, name| {
        ensure!(name == "data", "there is no volume {name}");
        Ok(volume(place, node))
    })?;
    ensure!(!pairs.is_empty(), "{namespace}/{name} has no destination");
    for pair in &pairs {
        same(&pair.source, &pair.copy)?;
    }
    step.done(&format!(
        "complete, {} the same as the source",
        if pairs.len() == 1 { "one copy" } else { "all copies" }
    ));
    Ok(())
}

/// A node's volume, on this machine.
fn volume(place: &Place, node: &str) -> PathBuf {
    let below = Path::new(VOLUME).strip_prefix("/var/lib").unwrap_or(Path::new(VOLUME));
    node::var_lib(place, node).join(below)
}

fn get(kubectl: &Kubectl, arguments: &[&str]) -> Result<Value> {
    let text = kubectl.run(&[&["get", "--output=json"], arguments].concat())?;
    serde_json::from_str(&text).context("kubectl get wrote no JSON")
}

/// What kubectl itself would wait for without an end.
fn long(kubectl: &Kubectl, arguments: &[&str]) -> Result<String> {
    let mut said = String::new();
    exec::watched_within(kubectl.command().args(arguments), SOON, |line| {
        said.extend(line.map(|line| format!("{line}\n")));
    })?;
    Ok(said)
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

fn is_true(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|is| is["type"] == condition && is["status"] == "True")
}

/// Asks until there is no error.
fn until(within: Duration, ask: impl Fn() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + within;
    while let Err(error) = ask() {
        interrupt::check()?;
        if Instant::now() >= deadline {
            return Err(error).context(format!("not within {} s", within.as_secs()));
        }
        // Polled: what is asked for stands in several objects.
        thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}
