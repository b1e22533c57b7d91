//! Memory that an unmodified Dynamo worker exposes by itself, in both roles.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use nixl_transfer_tests::{
    Cluster, Setup,
    data::{assert_same_content, write_file},
    jobs::condition_of,
    regions::{file, held_by_agent, job, memory, region},
    workloads::Sockets,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
/// No multiple of anything.
const LENGTH: u64 = 5 * MIB + 4097;

fn external(name: &str, node: &str) -> Value {
    region(name, node, json!({"external": {}}))
}

/// What `dynamo_memory.py readable` has in its memory.
fn pattern(bytes: u64) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

fn sha256(cluster: &Cluster, node: &str, path: &str) -> Result<String> {
    let output = std::process::Command::new("sha256sum").arg(cluster.path(node, path)).output()?;
    Ok(String::from_utf8(output.stdout)?.split(' ').next().context("a digest")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dynamo_worker_is_written_to_and_told_when_all_is_there() -> Result<()> {
    let place = Sockets::new()?;
    let cluster = Setup::nodes(&["a", "b", "c"]).start().await?;
    write_file(&cluster.path("a", "file"), LENGTH, 1)?;
    cluster.apply(&external("worker", "b"))?;
    let why = cluster.wait_region_unready("worker", "RegionNotReady", SOON).await?;
    ensure!(why.contains("rdmaMetadata"), "{why}");
    let python = cluster.dynamo(&place, "writable", "worker", LENGTH)?;
    python.line_with("published", SOON)?;
    let status = cluster.wait_region_ready("worker", SOON).await?.status.context("a status")?;
    ensure!((status.size, status.device.as_deref()) == (Some(i64::try_from(LENGTH)?), Some("cpu")));

    // A chain goes through its node.
    cluster.apply(&job("into", file("a", "file"), &[memory("worker"), file("c", "copy")]))?;
    cluster.wait_complete("into", SOON).await?;
    assert_same_content(&cluster.path("a", "file"), &cluster.path("c", "copy"))?;
    let said = python.line_with("complete", SOON)?;
    ensure!(said == format!("complete {}", sha256(&cluster, "a", "file")?), "{said}");
    python.wait(SOON)?;
    // Its one transfer is over, and nobody uses it again.
    let why = cluster.wait_region_unready("worker", "RegionNotReady", SOON).await?;
    ensure!(why.contains("has served"), "{why}");
    let mut again = job("again", file("a", "file"), &[memory("worker")]);
    again["spec"]["pendingDeadlineSeconds"] = json!(1);
    cluster.apply(&again)?;
    let (reason, message) = cluster.wait_failed("again", SOON).await?;
    ensure!(reason == "DeadlineExceeded" && message.contains("has served"), "{reason}: {message}");

    // A new operation is a new transfer; its memory must be as long as what comes.
    let python = cluster.dynamo(&place, "writable", "worker", LENGTH + 1)?;
    python.line_with("published", SOON)?;
    cluster.wait_region_ready("worker", SOON).await?;
    cluster.apply(&job("too-short", file("a", "file"), &[memory("worker")]))?;
    let (reason, message) = cluster.wait_failed("too-short", SOON).await?;
    ensure!(reason == "LengthMismatch", "{reason}: {message}");
    cluster.wait_region_ready("worker", SOON).await?;
    cluster.assert_nothing_left(&["a", "b", "c"], SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dynamo_worker_is_read_into_a_file_and_into_memory() -> Result<()> {
    let place = Sockets::new()?;
    let cluster = Setup::nodes(&["a", "b"]).start().await?;
    cluster.apply(&external("worker", "a"))?;
    let python = cluster.dynamo(&place, "readable", "worker", LENGTH)?;
    python.line_with("published", SOON)?;
    cluster.wait_region_ready("worker", SOON).await?;
    cluster.apply(&job("out", memory("worker"), &[file("b", "copy")]))?;
    let done = cluster.wait_complete("out", SOON).await?;
    let (_, reason, message) = condition_of(&done, "Complete").context("a condition")?;
    ensure!(reason == "Unverified" && message.contains("owner"), "{reason}: {message}");
    ensure!(fs::read(cluster.path("b", "copy"))? == pattern(LENGTH));
    python.line_with("complete", SOON)?;
    python.wait(SOON)?;

    // With a digest it is verified, and with a wrong one nothing arrives and nobody is told.
    let digest = done.status.context("a status")?.destinations[0].digest.clone().context("a digest")?;
    let mut region = external("worker", "a");
    let other = if digest.ends_with('0') { '1' } else { '0' };
    region["spec"]["external"] = json!({"digest": format!("{}{other}", &digest[..digest.len() - 1])});
    cluster.apply(&region)?;
    cluster.apply(&held_by_agent("agents", "b", LENGTH))?;
    let python = cluster.dynamo(&place, "readable", "worker", LENGTH)?;
    python.line_with("published", SOON)?;
    cluster.wait_region_ready("worker", SOON).await?;
    let mut checked = job("checked", memory("worker"), &[memory("agents")]);
    checked["spec"]["backoffLimit"] = json!(1);
    cluster.apply(&checked)?;
    let (reason, message) = cluster.wait_failed("checked", SOON).await?;
    ensure!(reason == "BackoffLimitExceeded" && message.contains("another digest"), "{reason}: {message}");
    region["spec"]["external"] = json!({"digest": digest});
    cluster.apply(&region)?;
    cluster.wait_region_ready("worker", SOON).await?;
    checked["spec"]["trigger"] = json!("again");
    cluster.apply(&checked)?;
    let done = cluster.wait_complete("checked", SOON).await?;
    ensure!(condition_of(&done, "Complete").context("a condition")?.1 == "Succeeded");
    python.line_with("complete", SOON)?;
    python.wait(SOON)?;
    cluster.apply(&job("back", memory("agents"), &[file("a", "back")]))?;
    cluster.wait_complete("back", SOON).await?;
    ensure!(fs::read(cluster.path("a", "back"))? == pattern(LENGTH));
    cluster.assert_nothing_left(&["a", "b"], SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_writes_its_memory_meanwhile_is_found_out_and_not_told() -> Result<()> {
    let place = Sockets::new()?;
    let cluster = Setup::nodes(&["a"]).start().await?;
    write_file(&cluster.path("a", "file"), LENGTH, 1)?;
    cluster.apply(&external("worker", "a"))?;
    let script = "tests/python/scribbling_worker.py";
    let python = cluster.dynamo_script(&place, script, "writable", "worker", LENGTH)?;
    python.line_with("published", SOON)?;
    cluster.wait_region_ready("worker", SOON).await?;
    let mut into = job("into", file("a", "file"), &[memory("worker")]);
    into["spec"]["backoffLimit"] = json!(0);
    cluster.apply(&into)?;
    let (reason, message) = cluster.wait_failed("into", SOON).await?;
    ensure!(reason == "BackoffLimitExceeded" && message.contains("IntegrityError"), "{reason}: {message}");
    // What it offers has not served, and it still waits.
    cluster.wait_region_ready("worker", SOON).await?;
    ensure!(python.line(Duration::from_millis(500)).is_err(), "it was told that all is well");
    cluster.assert_nothing_left(&["a"], SOON).await
}
