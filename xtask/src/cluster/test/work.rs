//! What a user does with an installed chart, through kubectl alone; files are looked at where the nodes keep them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use devcluster::Kubectl;
use serde_json::{Value, json};

use super::NAMESPACE;
use super::ask::{SOON, get, is_true, items, long, until};
use super::chart::VOLUME;
use crate::cluster::node;
use crate::cluster::record::Place;
use crate::demo::compare::{pairs, same};
use crate::demo::dataset;
use crate::demo::jobs::{self, Key, has_ended};
use crate::progress::{Step, bytes};
use crate::{interrupt, paths};

const JOB_ENDS_WITHIN: Duration = Duration::from_secs(180);
/// The grace that the chart gives to agents, and some more.
const TERMINATED_WITHIN: Duration = Duration::from_secs(90);
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
    change_job(kubectl, &key, "--type=merge", change)?;
    complete(place, kubectl, &key)
}

fn change_job(kubectl: &Kubectl, (namespace, name): &Key, how: &str, change: &str) -> Result<()> {
    kubectl.run(&["patch", "--namespace", namespace, "transferjob", name, how, "--patch", change]).map(drop)
}

/// A file into memory, and from there into other memory and onto another node's disk.
pub fn memory(place: &Place, kubectl: &Kubectl) -> Result<()> {
    let source = volume(place, &node::name(0));
    dataset::write_files(&source, [("weights".to_owned(), 20 << 20)])?;
    let example = fs::read_to_string(paths::root().join("examples/memory.yaml"))?.replace("gpu-", "node-");
    kubectl.run_with_input(&["apply", "--filename=-"], Some(&example))?;
    let mut step = Step::start("jobs default/load and default/spread, by way of memory");
    for name in ["load", "spread"] {
        let key = ("default".to_owned(), name.to_owned());
        ended(kubectl, &key, &mut step)?;
    }
    same(&source.join("weights"), &volume(place, &node::name(1)).join("weights"))?;
    step.done("complete, the file is the same behind it");
    kubectl.run_with_input(&["delete", "--filename=-"], Some(&example)).map(drop)
}

/// The pod of a receiving agent is taken away while it receives, or shortly after; the job has what it wants all the same.
pub fn agents_may_go(place: &Place, kubectl: &Kubectl) -> Result<()> {
    let key: Key = ("ml".to_owned(), "model-to-receivers".to_owned());
    let step = Step::start("deleting an agent's pod while it receives");
    let change = r#"[{"op":"replace","path":"/spec/destinations/0/volume/path","value":"elsewhere"}]"#;
    change_job(kubectl, &key, "--type=json", change)?;
    let running = || {
        let tasks = get(kubectl, &["--namespace", &key.0, "transfertasks"])?;
        let begun = |task: &Value| !task["status"]["target"].is_null();
        let of_run = |task: &&Value| task["spec"].to_string().contains("elsewhere");
        ensure!(items(&tasks).filter(of_run).any(begun), "no hop to it has begun");
        Ok(())
    };
    until(SOON, running)?;
    step.done(&delete_agent(kubectl, &node::name(1))?);
    complete(place, kubectl, &key)
}

/// Takes the pod of a node's agent away, and says which that was.
pub(super) fn delete_agent(kubectl: &Kubectl, node: &str) -> Result<String> {
    let on = format!("--field-selector=spec.nodeName={node}");
    let pods = kubectl.run(&["get", "pods", "--namespace", NAMESPACE, &on, "--output=name"])?;
    let agent = pods.lines().find(|pod| pod.contains("agent"));
    let agent = agent.with_context(|| format!("there is no agent on {node}"))?;
    kubectl.run(&["delete", "--namespace", NAMESPACE, agent, "--wait=false", "--grace-period=1"])?;
    Ok(agent.to_owned())
}

/// A job that goes slowly, from a node's volume and path to another node's; its file there has the job's name.
pub(super) fn slow_job(
    name: &str,
    space: &str,
    (from, volume, path): (&str, &str, &str),
    (to, target): (&str, &str),
) -> Value {
    json!({
        "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "TransferJob", "metadata": {"name": name, "namespace": space},
        "spec": {
            "source": {"node": {"name": from}, "volume": {"name": volume, "path": path}},
            "destinations": [{"name": "only", "node": {"name": to}, "volume": {"name": target, "path": name}}],
            "transport": {"bandwidthLimit": "512Ki"},
        },
    })
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
    until(TERMINATED_WITHIN, pods)?;
    long(kubectl, &["delete", "namespace", "ml", NAMESPACE])?;
    step.done("no task, no pod; the namespaces can be deleted");
    Ok(())
}

/// Returns when it is Complete and each copy is the same as the source.
fn complete(place: &Place, kubectl: &Kubectl, key: &Key) -> Result<()> {
    let mut step = Step::start(format!("job {}/{}", key.0, key.1));
    let job = ended(kubectl, key, &mut step)?;
    let pairs = pairs(&job, |node, name| {
        ensure!(name == "data", "there is no volume {name}");
        Ok(volume(place, node))
    })?;
    ensure!(!pairs.is_empty(), "it has no destination");
    for pair in &pairs {
        same(&pair.source, &pair.copy)?;
    }
    step.done(&format!(
        "complete, {} the same as the source",
        if pairs.len() == 1 { "one copy" } else { "all copies" }
    ));
    Ok(())
}

/// The job, when it is Complete.
pub(super) fn ended(kubectl: &Kubectl, key: &Key, step: &mut Step) -> Result<Value> {
    let (namespace, name) = key;
    let deadline = Instant::now() + JOB_ENDS_WITHIN;
    loop {
        let job = get(kubectl, &["--namespace", namespace, "transferjob", name])?;
        if has_ended(&job) {
            ensure!(
                is_true(&job, "Complete"),
                "{namespace}/{name} failed: {:#}",
                job["status"]["conditions"]
            );
            return Ok(job);
        }
        let phase = job["status"]["phase"].as_str().unwrap_or("Pending");
        let limit = JOB_ENDS_WITHIN.as_secs();
        ensure!(Instant::now() < deadline, "{namespace}/{name} is {phase} after {limit} s");
        interrupt::check()?;
        step.tick(phase);
        // Polled: kubectl's watch would have to be ended in the middle of a line.
        thread::sleep(Duration::from_millis(300));
    }
}

/// A node's volume `data`, on this machine.
pub(super) fn volume(place: &Place, node: &str) -> PathBuf {
    volume_at(place, node, VOLUME)
}

/// A directory of a node beneath /var/lib, on this machine.
pub(super) fn volume_at(place: &Place, node: &str, directory: &str) -> PathBuf {
    let below = Path::new(directory).strip_prefix("/var/lib").unwrap_or(Path::new(directory));
    node::var_lib(place, node).join(below)
}
