//! A job whose receiving worker is killed: what the agents and the status say about the rest.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nixl_transfer_crds::TransferJob;
use nixl_transfer_tests::{Cluster, jobs::one_to_one};
use rustix::process::{Pid, Signal, kill_process};

use crate::{LONGEST, moves};

/// From node `a` to node `b`, whose worker is killed when it has stored so many bytes. The words are what was counted.
pub async fn die(
    cluster: &Cluster,
    name: &str,
    bytes: u64,
    from: &str,
    to: &str,
) -> Result<(Duration, String)> {
    let before = sent(cluster)?;
    let job: TransferJob = serde_json::from_value(one_to_one(name, ("a", from), ("b", to)))?;
    let since = Instant::now();
    cluster.jobs().create(&Default::default(), &job).await?;
    // To look for the worker takes a while, in which more would come.
    cluster.wait_partial("b", 1, LONGEST).await?;
    let worker = cluster.busy_workers("b").pop().context("no worker receives")?;
    cluster.wait_partial("b", bytes, LONGEST).await?;
    kill_process(Pid::from_raw(worker.pid).context("a pid")?, Signal::KILL)?;
    cluster.wait_complete(name, LONGEST).await?;
    let took = since.elapsed();
    // Tasks of earlier attempts are gone by now.
    let last = cluster.tasks_of(name).await?.pop().context("a job has a task")?;
    ensure!(last.spec.attempt > 0, "the job was done before the worker was killed");
    let resumed = last.status.and_then(|status| status.target?.bytes_resumed).unwrap_or(0);
    moves::remove(cluster, name).await?;
    let words = format!(
        " {} attempts, {} MiB not sent again by the task's bytesResumed, {} MiB sent by the agent's counter",
        last.spec.attempt + 1,
        resumed >> 20,
        (sent(cluster)? - before) >> 20
    );
    Ok((took, words))
}

/// What the agent of node `a` has counted as sent.
fn sent(cluster: &Cluster) -> Result<u64> {
    let text = cluster.agent("a").metrics()?;
    let lines = text
        .lines()
        .filter(|line| line.starts_with("nixl_transfer_bytes_total{") && line.contains("direction=\"sent\""));
    let values = lines.map(|line| {
        line.rsplit(' ').next().context("a metric has a value")?.parse::<u64>().context("a count")
    });
    values.sum()
}
