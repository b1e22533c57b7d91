//! Jobs that are measured: to one node, to many, and to many of which one dies half way.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher},
};
use nixl_transfer_crds::{TransferJob, TransferNode, TransferTask, task::SideState};
use nixl_transfer_tests::{Cluster, cluster::NAMESPACE, jobs::one_to_one};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::LONGEST;

/// What a job took, and what became of it.
pub struct Moved {
    pub took: Duration,
    pub job: TransferJob,
    pub task: TransferTask,
}

impl Moved {
    /// How the receivers got their copies, as the operator says.
    pub fn fan_out(&self) -> String {
        let transport = self.job.status.as_ref().and_then(|status| status.transport.as_ref());
        transport.and_then(|transport| transport.fan_out.clone()).unwrap_or_else(|| "unknown".into())
    }
}

/// From node `a` to node `b`.
pub async fn one(cluster: &Cluster, name: &str, from: &str, to: &str) -> Result<Moved> {
    complete(cluster, &one_to_one(name, ("a", from), ("b", to))).await
}

/// Apply to Complete. The job is deleted afterwards, and gone when this returns, so that all start alike.
pub async fn complete(cluster: &Cluster, job: &Value) -> Result<Moved> {
    let job: TransferJob = serde_json::from_value(job.clone())?;
    let name = job.metadata.name.clone().context("a job has a name")?;
    let since = Instant::now();
    cluster.jobs().create(&Default::default(), &job).await?;
    let job = cluster.wait_complete(&name, LONGEST).await?;
    let took = since.elapsed();
    let task = cluster.tasks_of(&name).await?.pop().context("a job has a task")?;
    remove(cluster, &name).await?;
    Ok(Moved { took, job, task })
}

/// A job from node `a` to each of the receivers.
pub fn fan(name: &str, how: &str, receivers: &[String], from: &str, to: &str) -> Value {
    let mut job = one_to_one(name, ("a", from), ("b", to));
    job["spec"]["transport"] = json!({"fanOut": how});
    let destinations = receivers
        .iter()
        .map(|node| json!({"name": node, "node": {"name": node}, "volume": {"name": "data", "path": to}}));
    job["spec"]["destinations"] = destinations.collect();
    job
}

/// The same, but all processes of the second receiver's agent are killed when it has half of the bytes. The time is that
/// until the others have all; afterwards the agent is started again.
pub async fn fan_with_a_death(
    cluster: &mut Cluster,
    job: &Value,
    receivers: &[String],
    half: u64,
) -> Result<Duration> {
    let job: TransferJob = serde_json::from_value(job.clone())?;
    let name = job.metadata.name.clone().context("a job has a name")?;
    let victim = receivers.get(1).context("a second receiver")?;
    let nodes: Api<TransferNode> = Api::all(cluster.client());
    let instance = |node: &TransferNode| node.status.as_ref().map(|status| status.instance.clone());
    let before = instance(&nodes.get(victim).await?);
    let since = Instant::now();
    cluster.jobs().create(&Default::default(), &job).await?;
    cluster.wait_partial(victim, half, LONGEST).await?;
    let below = cluster.agent(victim).descendants();
    cluster.agent_mut(victim).kill9()?;
    for process in below {
        // Most have noticed by themselves.
        let _ = kill_process(Pid::from_raw(process.pid).context("a pid")?, Signal::KILL);
    }
    let survivors = receivers.iter().filter(|node| *node != victim).cloned().collect();
    timeout(LONGEST, succeeded(cluster, &name, survivors))
        .await
        .context("the others have not got all in time")??;
    let took = since.elapsed();
    cluster.agent_mut(victim).restart()?;
    cluster.agent(victim).wait_ready()?;
    let deadline = Instant::now() + LONGEST;
    while instance(&nodes.get(victim).await?) == before {
        ensure!(Instant::now() < deadline, "{victim} does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await; // polls with a deadline, and nothing is measured
    }
    cluster.wait_node_ready(victim, LONGEST).await?;
    remove(cluster, &name).await?;
    Ok(took)
}

/// Waits until each of the nodes has everything, by whichever attempt.
async fn succeeded(cluster: &Cluster, job: &str, mut nodes: BTreeSet<String>) -> Result<()> {
    let tasks: Api<TransferTask> = Api::namespaced(cluster.client(), NAMESPACE);
    let of_job = watcher::Config::default().labels(&format!("nixl-transfer.io/job={job}"));
    let mut events = std::pin::pin!(watcher(tasks, of_job).applied_objects());
    while !nodes.is_empty() {
        let task = events.try_next().await?.context("the watch has ended")?;
        let target = task.status.and_then(|status| status.target);
        if target.is_some_and(|target| target.state == SideState::Succeeded) {
            nodes.remove(&task.spec.target.node_name);
        }
    }
    Ok(())
}

/// Deletes the job, and returns when nothing of it is left.
pub async fn remove(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.jobs().delete(name, &Default::default()).await?;
    cluster.wait_no_tasks(name, LONGEST).await
}
