//! What happens to a cluster on any day, while jobs run: the leader is killed, all operators are away for a minute, agents are
//! rolled, a node is drained, a node is deleted and comes back, the chart is upgraded and rolled back.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use devcluster::Kubectl;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::ask::{SOON, apply, get, is_true, items, until};
use super::chart::Chart;
use super::load::{FILE, Load, SPACE};
use super::{Cluster, NAMESPACE};
use crate::cluster::{images, node};
use crate::image::Name;
use crate::progress::seconds;
use crate::{exec, interrupt};

const AWAY: Duration = Duration::from_secs(60);
const ROLLED_WITHIN: Duration = Duration::from_secs(240);
/// A job that follows.
const FOLLOWS: &str = "follows";
/// The tag of the images that the upgrade brings.
const NEXT: &str = "next";

type Disturb<'a> = &'a dyn Fn() -> Result<()>;

/// Each after the other.
pub fn none_is_lost(cluster: &Cluster, chart: &Chart) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let last = node::name(cluster.record.nodes - 1);
    let each: [(&str, &str, Disturb); 6] = [
        ("leader", "the leader is killed", &|| kill_leader(cluster)),
        ("alone", "no operator for a minute", &|| without_operators(kubectl)),
        ("rolled", "agents are rolled one by one", &|| roll(kubectl, "daemonset")),
        ("drained", "a node is drained", &|| drain(kubectl, &last)),
        ("deleted", "a node is deleted and joins again", &|| delete_node(cluster, &last)),
        ("upgraded", "an upgrade and a rollback", &|| upgrade_and_back(cluster, chart)),
    ];
    for (label, what, disturb) in each {
        Load { place: cluster.place, kubectl, nodes: cluster.record.nodes, label }.during(what, disturb)?;
    }
    Ok(())
}

fn deployment(kubectl: &Kubectl) -> Result<String> {
    let name = kubectl.run(&["get", "deployment", "--namespace", NAMESPACE, "--output=name"])?;
    Ok(name.trim().to_owned())
}

/// By SIGKILL, so that it cannot let go of its Lease. Returns when another one leads.
fn kill_leader(cluster: &Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let before = leader(kubectl)?;
    // Its pod's name, and a number of its start.
    let (pod, _) = before.rsplit_once('_').with_context(|| format!("the Lease is held by {before:?}"))?;
    let pod = get(kubectl, &["pod", pod, "--namespace", NAMESPACE])?;
    let node = pod["spec"]["nodeName"].as_str().context("a pod on no node")?;
    signal(cluster, node, "/transfer-operator", Signal::KILL)?;
    until(SOON, || {
        let now = leader(kubectl)?;
        ensure!(now != before && !now.is_empty(), "the Lease is held by {now:?}");
        Ok(())
    })
}

/// To the processes of a node whose program has this name.
fn signal(cluster: &Cluster, node: &str, program: &str, signal: Signal) -> Result<()> {
    let found = cluster.running(node, program)?;
    ensure!(!found.is_empty(), "{node} does not run {program}");
    for process in found {
        let pid = Pid::from_raw(process.pid).context("a process without a number")?;
        kill_process(pid, signal).with_context(|| format!("{program} of {node}"))?;
    }
    Ok(())
}

fn leader(kubectl: &Kubectl) -> Result<String> {
    let lease = get(kubectl, &["--namespace", NAMESPACE, "lease", "nixl-transfer-operator"])?;
    Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
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

/// Its Node is deleted under a kubelet that runs on, which so ends its pods; then the kubelet starts anew, as after a repair, and the
/// node is another one of the same name. A job that follows gives it its copy again.
fn delete_node(cluster: &Cluster, name: &str) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let uid = || Ok::<_, anyhow::Error>(get(kubectl, &["node", name])?["metadata"]["uid"].to_string());
    let before = uid()?;
    follow(kubectl)?;
    exec_within(kubectl, &["delete", "node", name])?;
    until(ROLLED_WITHIN, || {
        let on = format!("--field-selector=spec.nodeName={name}");
        let pods = get(kubectl, &["pods", "--namespace", NAMESPACE, &on])?;
        ensure!(items(&pods).next().is_none(), "pods of {name} are still there");
        Ok(())
    })?;
    signal(cluster, name, "/kubelet", Signal::TERM)?;
    until(ROLLED_WITHIN, || uid().map(drop))?;
    let joined = Instant::now();
    until(ROLLED_WITHIN, || {
        let node = get(kubectl, &["node", name])?;
        ensure!(is_true(&node, "Ready"), "{name} is not ready");
        Ok(())
    })?;
    let ready = joined.elapsed();
    ensure!(uid()? != before, "{name} is the node that it was");
    until(ROLLED_WITHIN, || all_have_it(kubectl, cluster.record.nodes - 1))?;
    eprintln!(
        "  {name} joined, was Ready after {}, and had what the job that follows gives it after {}",
        seconds(ready),
        seconds(joined.elapsed())
    );
    kubectl.run(&["delete", "transferjob", FOLLOWS, "--namespace", SPACE, "--wait=false"]).map(drop)
}

/// A job for all nodes with a label, also for those that come. Returns when those that are there have it.
fn follow(kubectl: &Kubectl) -> Result<()> {
    let job = json!({
        "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "TransferJob",
        "metadata": {"name": FOLLOWS, "namespace": SPACE},
        "spec": {
            "follow": true,
            "source": {"node": {"name": node::name(0)}, "volume": {"name": "data", "path": FILE}},
            "destinations": [{"name": "all", "node": {"selector": {"matchLabels": {"role": "receiver"}}},
                              "volume": {"name": "data", "path": FOLLOWS}}],
        },
    });
    apply(kubectl, &[job])?;
    until(SOON, || all_have_it(kubectl, 1))
}

/// It is Ready, and at least so many nodes have it.
fn all_have_it(kubectl: &Kubectl, least: usize) -> Result<()> {
    let job = get(kubectl, &["transferjob", FOLLOWS, "--namespace", SPACE])?;
    let nodes = &job["status"]["nodes"];
    let served = nodes["succeeded"].as_u64().unwrap_or(0);
    ensure!(is_true(&job, "Ready") && served >= least as u64, "{FOLLOWS}: {nodes}");
    Ok(())
}

/// To the next version of the chart with images of their own tag, and back by `helm rollback`. There is one release of the programs so
/// far: both tags are the same program.
fn upgrade_and_back(cluster: &Cluster, chart: &Chart) -> Result<()> {
    for name in [Name::Operator, Name::Agent] {
        images::tag(&cluster.record, name, NEXT)?;
    }
    chart.upgrade(NEXT)?;
    all_run(&cluster.kubectl, NEXT)?;
    chart.roll_back()?;
    all_run(&cluster.kubectl, crate::image::TAG)
}

/// Every pod has the images of this tag, and is ready.
fn all_run(kubectl: &Kubectl, tag: &str) -> Result<()> {
    let set = kubectl.run(&["get", "daemonset", "--namespace", NAMESPACE, "--output=name"])?;
    exec_within(kubectl, &["rollout", "status", set.trim(), "--namespace", NAMESPACE])?;
    until(SOON, || {
        let pods = get(kubectl, &["pods", "--namespace", NAMESPACE])?;
        for pod in items(&pods) {
            for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
                let image = container["image"].as_str().unwrap_or_default();
                ensure!(image.ends_with(&format!(":{tag}")), "a pod has {image}");
            }
        }
        ensure!(items(&pods).count() > 0, "there are no pods");
        Ok(())
    })
}

/// What kubectl itself would wait for without an end.
fn exec_within(kubectl: &Kubectl, arguments: &[&str]) -> Result<()> {
    exec::watched_within(kubectl.command().args(arguments), ROLLED_WITHIN, |_| {})
        .with_context(|| format!("kubectl {}", arguments.join(" ")))
        .map(drop)
}
