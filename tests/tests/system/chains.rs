//! One to many, as a chain: what happens to the others when one dies, hangs or is slow, and when the source's agent is
//! restarted. What was sent twice is asked of counters, never of a clock.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nixl_transfer_crds::{TransferTask, job::status::TransferJobStatus};
use nixl_transfer_tests::{
    Cluster, Setup,
    data::{assert_same, write_file},
    jobs::{to_receivers, with},
};
use rustix::process::Signal;
use serde_json::json;

use super::faults::signal;
use super::operations::metric;

const SOON: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(150);
const MIB: u64 = 1 << 20;
const SIZE: u64 = 192 * MIB;
/// What may come twice over one hop.
const LOST: u64 = 64 * MIB;
const NODES: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];

/// A chain from `a` to all other nodes, so slow that there is time to disturb it.
async fn chain(nodes: &[&str], bandwidth: &str) -> Result<Cluster> {
    let cluster = Setup::nodes(nodes).start().await?;
    write_file(&cluster.path("a", "file"), SIZE, 1)?;
    let transport = json!({"fanOut": "Chain", "bandwidthLimit": bandwidth});
    let job = with(to_receivers("chain", ("a", "file"), "file"), "transport", transport);
    cluster.apply(&with(job, "progressDeadlineSeconds", json!(20)))?;
    Ok(cluster)
}

fn succeeded(status: Option<&TransferJobStatus>) -> i64 {
    status.and_then(|status| status.nodes.as_ref()).map_or(0, |nodes| nodes.succeeded)
}

/// The last attempt of each hop. An earlier one may still be there: of a node that is gone nobody can end its half.
async fn last_attempts(cluster: &Cluster) -> Result<Vec<TransferTask>> {
    let tasks = cluster.tasks_of("chain").await?;
    let replaced = |task: &TransferTask| {
        tasks.iter().any(|other| {
            other.spec.target.node_name == task.spec.target.node_name
                && other.spec.attempt > task.spec.attempt
        })
    };
    Ok(tasks.iter().filter(|task| !replaced(task)).cloned().collect())
}

/// No node was sent more than the file and what may come twice, which is little for each time that it began again.
async fn assert_little_twice(cluster: &Cluster, nodes: &[&str]) -> Result<()> {
    for task in last_attempts(cluster).await? {
        let node = task.spec.target.node_name.as_str();
        if nodes.contains(&node) {
            let again = u64::try_from(task.spec.attempt)?;
            let received = metric(&cluster.agent(node).metrics()?, "nixl_transfer_bytes_total", "received");
            ensure!(
                received <= (SIZE + again * LOST) as f64,
                "{node} received {received} bytes in {again} further attempts:\n{}",
                cluster.explain("chain").await
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_third_node_of_eight_is_cut_out_and_the_others_go_on() -> Result<()> {
    let mut cluster = chain(&NODES, "48Mi").await?;
    cluster.wait_partial("d", SIZE / 2, SOON).await?;
    cluster.agent_mut("d").kill9()?;
    let job = cluster
        .wait_for("chain", SOON, "there on seven nodes", |job| succeeded(job.status.as_ref()) == 7)
        .await?;
    let transport = job.status.and_then(|status| status.transport).context("a transport")?;
    ensure!(transport.fan_out.as_deref() == Some("Chain"), "{transport:?}");
    let survivors: Vec<&str> = NODES.into_iter().filter(|node| !["a", "d"].contains(node)).collect();
    for node in &survivors {
        assert_same(&cluster.path("a", "file"), &cluster.path(node, "file"))?;
    }
    assert_little_twice(&cluster, &survivors).await?;
    let tasks = last_attempts(&cluster).await?;
    let mut digests: Vec<_> = tasks
        .iter()
        .filter(|task| task.spec.target.node_name != "d")
        .map(|task| task.status.as_ref()?.target.as_ref()?.digest.clone())
        .collect();
    digests.dedup();
    ensure!(digests.len() == 1 && digests[0].is_some(), "{digests:?}");
    for task in &tasks {
        let behind = ["e", "f", "g", "h", "i"].contains(&task.spec.target.node_name.as_str());
        let resumed = task.status.as_ref().and_then(|status| status.target.as_ref()?.bytes_resumed);
        ensure!(
            !behind || (task.spec.attempt > 0 && resumed > Some(0)),
            "{}",
            cluster.explain("chain").await
        );
        ensure!(!behind || task.spec.failures == 0, "who was cut off is blamed for it");
    }
    // It comes back, goes on from what it had, and everything is there.
    cluster.agent_mut("d").restart()?;
    cluster.wait_complete("chain", LONG).await?;
    assert_same(&cluster.path("a", "file"), &cluster.path("d", "file"))?;
    cluster.assert_nothing_left(&NODES, SOON).await
}

/// It gets a tenth of the processor: its worker is stopped most of the time. The chain goes at its pace, and nobody is
/// given up.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_at_a_tenth_of_its_speed_holds_up_the_others_and_harms_none() -> Result<()> {
    let cluster = chain(&NODES[..5], "64Mi").await?;
    cluster.wait_partial("c", SIZE / 8, SOON).await?;
    let worker = cluster.busy_workers("c").pop().context("a worker")?.pid;
    let slowed = tokio::task::spawn_blocking(move || {
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(8) {
            // This is the fault itself: nothing waits for it.
            for (what, milliseconds) in [(Signal::STOP, 90), (Signal::CONT, 10)] {
                if signal(worker, what).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(milliseconds));
            }
        }
    });
    cluster.wait_complete("chain", LONG).await?;
    slowed.await?;
    for node in &NODES[1..5] {
        assert_same(&cluster.path("a", "file"), &cluster.path(node, "file"))?;
    }
    let tasks = cluster.tasks_of("chain").await?;
    ensure!(tasks.iter().all(|task| task.spec.failures == 0), "{}", cluster.explain("chain").await);
    assert_little_twice(&cluster, &NODES[1..5]).await
}

/// A worker that hangs is found by the node before it, which goes on without it; those behind go on from what they have.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hangs_is_given_up_and_ended_and_the_others_have_their_copy() -> Result<()> {
    let cluster = chain(&NODES[..5], "48Mi").await?;
    cluster.wait_partial("c", SIZE / 3, SOON).await?;
    let worker = cluster.busy_workers("c").pop().context("a worker")?.pid;
    signal(worker, Signal::STOP)?;
    cluster.wait_complete("chain", LONG).await?;
    for node in &NODES[1..5] {
        assert_same(&cluster.path("a", "file"), &cluster.path(node, "file"))?;
    }
    ensure!(super::faults::is_gone(worker), "a worker that hangs was left alive");
    assert_little_twice(&cluster, &NODES[1..5]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_sources_agent_costs_little() -> Result<()> {
    let mut cluster = chain(&NODES, "48Mi").await?;
    cluster.wait_partial("i", SIZE / 2, SOON).await?;
    cluster.agent_mut("a").kill9()?;
    cluster.agent_mut("a").restart()?;
    cluster.wait_complete("chain", LONG).await?;
    for node in &NODES[1..] {
        assert_same(&cluster.path("a", "file"), &cluster.path(node, "file"))?;
    }
    for task in cluster.tasks_of("chain").await? {
        let target = task.status.and_then(|status| status.target).context("a half")?;
        ensure!(target.bytes_resumed > Some(0), "{}", cluster.explain("chain").await);
    }
    assert_little_twice(&cluster, &NODES[1..]).await?;
    cluster.assert_nothing_left(&NODES, SOON).await
}
