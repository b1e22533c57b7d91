//! An attempt that ends early is gone on with: what was durable is not sent again, whatever ended it, and never when the
//! source is another.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nixl_transfer_tests::{
    Cluster, Setup,
    data::{assert_same, assert_same_content, write_file},
    jobs::{one_to_one, with},
};
use rustix::process::Signal;
use serde_json::json;

use super::faults::signal;
use super::operations::metric;

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
const SIZE: u64 = 400 * MIB;

/// A file on its way from `a` to `b`, slow enough to be met at a part of it.
async fn moving(percent: u64) -> Result<Cluster> {
    let cluster = Setup::nodes(&["a", "b"]).start().await?;
    write_file(&cluster.path("a", "file"), SIZE, 1)?;
    let job = one_to_one("resumed", ("a", "file"), ("b", "file"));
    cluster.apply(&with(job, "transport", json!({"bandwidthLimit": "128Mi"})))?;
    cluster.wait_partial("b", SIZE * percent / 100, SOON).await?;
    Ok(cluster)
}

async fn resumed(cluster: &Cluster) -> Result<u64> {
    let task = cluster.tasks_of("resumed").await?.pop().context("a task")?;
    ensure!(task.spec.attempt > 0, "there was no second attempt");
    let target = task.status.and_then(|status| status.target).context("a half")?;
    Ok(u64::try_from(target.bytes_resumed.unwrap_or(0))?)
}

/// Bytes of content that came over the network, by the target's own counter.
fn received(cluster: &Cluster) -> Result<u64> {
    Ok(metric(&cluster.agent("b").metrics()?, "nixl_transfer_bytes_total", "received") as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_killed_at_any_part_gets_little_twice() -> Result<()> {
    for percent in [10, 50, 90] {
        let cluster = moving(percent).await?;
        let worker = cluster.busy_workers("b").pop().context("a worker")?;
        signal(worker.pid, Signal::KILL)?;
        cluster.wait_complete("resumed", SOON).await?;
        assert_same(&cluster.path("a", "file"), &cluster.path("b", "file"))?;
        // Counters are told once a second, so of the first attempt less may be known than came: what was not sent again
        // is the surer sign.
        let (resumed, received) = (resumed(&cluster).await?, received(&cluster)?);
        ensure!(received <= SIZE + 64 * MIB, "{percent} %: {received} bytes came");
        let durable = (SIZE * percent / 100).saturating_sub(64 * MIB);
        ensure!(resumed >= durable, "{percent} %: only {resumed} bytes were not sent again");
        cluster.assert_nothing_left(&["a", "b"], SOON).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_goes_on_from_its_journal() -> Result<()> {
    let mut cluster = moving(50).await?;
    cluster.agent_mut("b").kill9()?;
    cluster.agent_mut("b").restart()?;
    cluster.wait_complete("resumed", SOON).await?;
    let resumed = resumed(&cluster).await?;
    ensure!(resumed >= SIZE / 2 - 64 * MIB, "only {resumed} bytes were not sent again");
    assert_same(&cluster.path("a", "file"), &cluster.path("b", "file"))?;
    cluster.assert_nothing_left(&["a", "b"], SOON).await
}

/// The change is one byte among those that are at the target already; size and times are put back, as a careless writer
/// would not even do.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_changed_between_attempts_is_never_spliced() -> Result<()> {
    let mut cluster = moving(50).await?;
    cluster.agent_mut("b").kill9()?;
    let path = cluster.path("a", "file");
    let file = std::fs::File::options().read(true).write(true).open(&path)?;
    let modified = file.metadata()?.modified()?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, 5 * MIB)?;
    file.write_all_at(&[!byte[0]], 5 * MIB)?;
    file.set_modified(modified)?;
    cluster.agent_mut("b").restart()?;
    cluster.wait_complete("resumed", SOON).await?;
    assert_same(&cluster.path("a", "file"), &cluster.path("b", "file"))?;
    let resumed = resumed(&cluster).await?;
    ensure!(resumed == 0, "{resumed} bytes of the old content were taken");
    Ok(())
}

/// Files that stand at the destination with the same content are not sent.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_already_is_not_sent() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b"]).start().await?;
    for (name, seed) in [("same", 1), ("other", 2)] {
        write_file(&cluster.path("a", &format!("in/{name}")), 20 * MIB, seed)?;
        write_file(&cluster.path("b", &format!("out/{name}")), 20 * MIB, 1)?;
    }
    cluster.apply(&one_to_one("there", ("a", "in"), ("b", "out")))?;
    cluster.wait_complete("there", SOON).await?;
    assert_same_content(&cluster.path("a", "in"), &cluster.path("b", "out"))?;
    ensure!(received(&cluster)? == 20 * MIB, "{} bytes came", received(&cluster)?);
    Ok(())
}

/// What a run has left is gone with it, whichever way the run ends.
#[tokio::test(flavor = "multi_thread")]
async fn what_dead_runs_leave_is_collected() -> Result<()> {
    for how in ["deleted", "failed", "superseded"] {
        let cluster = moving(50).await?;
        let patch = |text: &str| {
            cluster.plane.kubectl(&["patch", "transferjob", "resumed", "--type=merge", "-p", text])
        };
        match how {
            "deleted" => {
                patch(r#"{"spec": {"suspend": true}}"#)?;
                cluster.plane.kubectl(&["delete", "transferjob", "resumed"])?;
            }
            "failed" => {
                patch(r#"{"spec": {"backoffLimit": 0}}"#)?;
                let worker = cluster.busy_workers("b").pop().context("a worker")?;
                signal(worker.pid, Signal::KILL)?;
                cluster.wait_failed("resumed", SOON).await?;
            }
            _ => {
                patch(r#"{"spec": {"suspend": true}}"#)?;
                write_file(&cluster.path("a", "small"), MIB, 1)?;
                patch(r#"{"spec": {"suspend": false, "source": {"volume": {"path": "small"}}}}"#)?;
                cluster.wait_complete("resumed", SOON).await?;
            }
        }
        cluster.assert_nothing_left(&["a", "b"], SOON).await.context(how)?;
    }
    Ok(())
}
