//! What happens to a cluster on any day, while jobs run: the leader is killed, all operators are away for a minute, agents are
//! rolled, a node is drained. No job may be lost, and none may end with other bytes than its source.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use devcluster::Kubectl;
use serde_json::{Value, json};

use super::NAMESPACE;
use super::ask::{SOON, get, items, until};
use super::work::{ended, volume};
use crate::cluster::node;
use crate::cluster::record::Place;
use crate::demo::compare::same;
use crate::demo::dataset;
use crate::demo::jobs::Key;
use crate::progress::Step;
use crate::{exec, interrupt};

/// Jobs that run during each of them: more than an agent has slots for.
const JOBS: usize = 6;
const BYTES: u64 = 4 << 20;
/// Each takes 8 s.
const LIMIT: &str = "512Ki";
const AWAY: Duration = Duration::from_secs(60);
const ROLLED_WITHIN: Duration = Duration::from_secs(240);
const SPACE: &str = "default";

/// Each after the other.
pub fn none_is_lost(place: &Place, kubectl: &Kubectl, nodes: usize) -> Result<()> {
    let each: [(&str, &dyn Fn() -> Result<()>); 4] = [
        ("the leader is killed", &|| kill_leader(kubectl)),
        ("no operator for a minute", &|| without_operators(kubectl)),
        ("agents are rolled one by one", &|| roll(kubectl, "daemonset")),
        ("a node is drained", &|| drain(kubectl, &node::name(nodes - 1))),
    ];
    let source = volume(place, &node::name(0));
    dataset::write_files(&source, [("load".to_owned(), BYTES)])?;
    for (number, (what, disturb)) in each.iter().enumerate() {
        let mut step = Step::start(format!("{what} while {JOBS} jobs run"));
        let keys = begin(kubectl, number, nodes)?;
        disturb()?;
        for (name, node) in &keys {
            let key: Key = (SPACE.to_owned(), name.clone());
            ended(kubectl, &key, &mut step)?;
            same(&source.join("load"), &volume(place, node).join(name))?;
        }
        step.done(&format!("{} jobs complete, none lost, none wrong", keys.len()));
    }
    Ok(())
}

/// Applies jobs from the first node to the others, and waits until bytes of one have arrived. Gives their names and nodes.
fn begin(kubectl: &Kubectl, number: usize, nodes: usize) -> Result<Vec<(String, String)>> {
    let receiver = |at: usize| node::name(1 + at % (nodes - 1));
    let keys: Vec<(String, String)> =
        (0..JOBS).map(|at| (format!("load-{number}-{at}"), receiver(at))).collect();
    let file =
        |node: &str, path: &str| json!({"node": {"name": node}, "volume": {"name": "data", "path": path}});
    let jobs: Vec<Value> = keys
        .iter()
        .map(|(name, node)| {
            let mut to = file(node, name);
            to["name"] = json!("only");
            json!({
                "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "TransferJob",
                "metadata": {"name": name, "namespace": SPACE},
                "spec": {"source": file(&node::name(0), "load"), "destinations": [to], "transport": {"bandwidthLimit": LIMIT}},
            })
        })
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": jobs});
    kubectl.run_with_input(&["apply", "--filename=-"], Some(&list.to_string()))?;
    let moving = || {
        let jobs = get(kubectl, &["--namespace", SPACE, "transferjobs"])?;
        let ours = |job: &&Value| {
            job["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(&format!("load-{number}-")))
        };
        let moved =
            items(&jobs).filter(ours).any(|job| job["status"]["progress"]["bytesDone"].as_i64() > Some(0));
        ensure!(moved, "nothing has arrived yet");
        Ok(())
    };
    until(SOON, moving)?;
    Ok(keys)
}

fn deployment(kubectl: &Kubectl) -> Result<String> {
    let name = kubectl.run(&["get", "deployment", "--namespace", NAMESPACE, "--output=name"])?;
    Ok(name.trim().to_owned())
}

/// Without a grace: it cannot let go of its Lease.
fn kill_leader(kubectl: &Kubectl) -> Result<()> {
    let lease = get(kubectl, &["--namespace", NAMESPACE, "lease", "nixl-transfer-operator"])?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    // Its pod's name, and a number of its start.
    let (pod, _) = holder.rsplit_once('_').with_context(|| format!("the Lease is held by {holder:?}"))?;
    kubectl.run(&["delete", "pod", pod, "--namespace", NAMESPACE, "--grace-period=0", "--force"]).map(drop)
}

fn without_operators(kubectl: &Kubectl) -> Result<()> {
    let name = deployment(kubectl)?;
    let scale = |count: &str| {
        kubectl.run(&["scale", &name, "--namespace", NAMESPACE, &format!("--replicas={count}")]).map(drop)
    };
    scale("0")?;
    let gone = || {
        let found = get(kubectl, &["--namespace", NAMESPACE, &name])?;
        ensure!(found["status"]["replicas"].as_i64().unwrap_or(0) == 0, "operators are still there");
        Ok(())
    };
    until(SOON, gone)?;
    let until = Instant::now() + AWAY;
    while Instant::now() < until {
        interrupt::check()?;
        thread::sleep(Duration::from_millis(500)); // the disturbance is that nothing happens
    }
    scale("2")?;
    exec_within(kubectl, &["rollout", "status", &name, "--namespace", NAMESPACE])
}

/// Makes every pod of it anew, as an upgrade does.
fn roll(kubectl: &Kubectl, kind: &str) -> Result<()> {
    let name = kubectl.run(&["get", kind, "--namespace", NAMESPACE, "--output=name"])?;
    kubectl.run(&["rollout", "restart", name.trim(), "--namespace", NAMESPACE])?;
    exec_within(kubectl, &["rollout", "status", name.trim(), "--namespace", NAMESPACE])
}

/// Operators leave it, its agent stays, as that of a DaemonSet does; then it is as before.
fn drain(kubectl: &Kubectl, node: &str) -> Result<()> {
    exec_within(kubectl, &["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force"])?;
    kubectl.run(&["uncordon", node]).map(drop)
}

/// What kubectl itself would wait for without an end.
fn exec_within(kubectl: &Kubectl, arguments: &[&str]) -> Result<()> {
    exec::watched_within(kubectl.command().args(arguments), ROLLED_WITHIN, |_| {})
        .with_context(|| format!("kubectl {}", arguments.join(" ")))
        .map(drop)
}
