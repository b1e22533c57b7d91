//! Memory of GPUs as source and as destination of jobs. On a driver named fake unless `cargo xtask test --gpu` runs them: then
//! control, workers, NIXL and files are real, and the GPUs' memory is the host's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nixl_transfer_crds::{MemoryRegion, TransferJob, TransferNode, condition};
use nixl_transfer_tests::{
    Cluster, Setup,
    data::{assert_same_content, write_file},
    gpus::{FAKE_BYTES, GRANULARITY, Gpus},
    regions::{file, held_by_agent, job, memory},
    workloads::Sockets,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
/// No multiple of anything.
const LENGTH: u64 = 5 * MIB + 4097 + 5;

/// A region of a GPU.
fn on_gpu(name: &str, node: &str, index: usize, bytes: u64) -> Value {
    let mut region = held_by_agent(name, node, bytes);
    region["spec"]["agent"]["device"] = json!(format!("cuda:{index}"));
    region
}

/// Free memory for regions of a GPU, as its TransferNode says.
fn free(node: &TransferNode, index: usize) -> Option<u64> {
    let gpu = node.status.as_ref()?.gpus.get(index)?;
    u64::try_from(gpu.regions?.free?).ok()
}

fn staged(job: &TransferJob) -> Vec<String> {
    let transport = job.status.as_ref().and_then(|status| status.transport.clone());
    transport.map(|used| used.staged).unwrap_or_default()
}

fn digests(job: &TransferJob) -> Vec<Option<String>> {
    let destinations = job.status.iter().flat_map(|status| &status.destinations);
    destinations.map(|destination| destination.digest.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_between_files_host_memory_and_gpus_in_every_direction() -> Result<()> {
    let places = Sockets::new()?;
    let (two, one) = (Gpus::new(places.of("two"), 2)?, Gpus::new(places.of("one"), 1)?);
    let cluster = Setup::nodes(&["a", "b"])
        .agent_config("a", two.config())
        .agent_config("b", one.config())
        .start()
        .await?;
    write_file(&cluster.path("a", "file"), LENGTH, 1)?;
    // A machine's own GPUs may be one.
    let count = cluster.gpus_of("a").await?.len();
    cluster.gpus_of("b").await?;
    let last = count.min(2) - 1;
    // One is longer than what comes.
    for (name, node, index, bytes) in
        [("a0", "a", 0, LENGTH), ("a1", "a", last, LENGTH + 3 * MIB), ("b0", "b", 0, LENGTH)]
    {
        cluster.apply(&on_gpu(name, node, index, bytes))?;
        let status = cluster.wait_region_ready(name, SOON).await?.status.context("a status")?;
        let device = format!("cuda:{index}");
        ensure!((status.size, status.device) == (Some(i64::try_from(bytes)?), Some(device)), "{name}");
    }
    cluster.apply(&held_by_agent("host", "b", LENGTH))?;
    let left = (1 << 30) - LENGTH.next_multiple_of(GRANULARITY);
    cluster.wait_node("b", SOON, "charged", |node| free(node, 0) == Some(left)).await?;

    cluster.apply(&job("in", file("a", "file"), &[memory("a0")]))?;
    let moved = cluster.wait_complete("in", SOON).await?;
    let digest = digests(&moved)[0].clone();
    ensure!(digest.is_some() && staged(&moved) == ["target"], "{:?}", moved.status);

    // Within the node to its other GPU, to another node's GPU, to host memory and to a file.
    let everywhere = [memory("a1"), memory("b0"), memory("host"), file("b", "copy")];
    cluster.apply(&job("out", memory("a0"), &everywhere))?;
    let moved = cluster.wait_complete("out", SOON).await?;
    ensure!(
        digests(&moved) == vec![digest.clone(); 4] && staged(&moved) == ["source", "target"],
        "{moved:?}"
    );
    assert_same_content(&cluster.path("a", "file"), &cluster.path("b", "copy"))?;

    // From each of them back to files; one has no GPU on its way.
    for (name, region) in [("from-a1", "a1"), ("from-b0", "b0"), ("from-host", "host")] {
        cluster.apply(&job(name, memory(region), &[file("a", name), file("b", name)]))?;
        let moved = cluster.wait_complete(name, SOON).await?;
        ensure!(digests(&moved) == vec![digest.clone(); 2], "{name}");
        ensure!(staged(&moved).is_empty() == (region == "host"), "{name}: {:?}", moved.status);
        assert_same_content(&cluster.path("a", "file"), &cluster.path("a", name))?;
        assert_same_content(&cluster.path("a", "file"), &cluster.path("b", name))?;
    }
    for region in ["a0", "a1", "b0"] {
        cluster.delete_region(region).await?;
    }
    cluster.wait_node("b", SOON, "free", |node| free(node, 0) == Some(1 << 30)).await?;
    cluster
        .wait_node("a", SOON, "free", |node| (0..count).all(|gpu| free(node, gpu) == Some(1 << 30)))
        .await?;
    nothing_held(&cluster, &["a", "b"]).await
}

/// No agent has memory of a GPU any more, and no worker is left that could.
async fn nothing_held(cluster: &Cluster, nodes: &[&str]) -> Result<()> {
    for node in nodes {
        let held = cluster.gpu_memory_held(node)?;
        ensure!(held == 0, "{held} pieces of GPU memory are held on {node}");
    }
    cluster.assert_nothing_left(nodes, SOON).await
}

/// With sizes of a fake GPU.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_gpu_cannot_give_is_refused_with_what_to_do_and_comes_when_there_is_room() -> Result<()> {
    let places = Sockets::new()?;
    let gpus = Gpus::new(places.of("gpus"), 1)?;
    let mut config = gpus.config();
    config["memory"] = json!({"gpu": "96Mi"});
    let cluster = Setup::nodes(&["a", "b"]).agent_config("b", config).start().await?;
    write_file(&cluster.path("a", "file"), MIB + 1, 1)?;

    for (name, node, index, bytes, reason, words) in [
        ("no-gpus", "a", 0, MIB, "NoSuchDevice", "it has none"),
        ("another", "b", 1, MIB, "NoSuchDevice", "cuda:0 (GPU-"),
        // More than the GPU has, and more than the budget has.
        ("beyond-gpu", "b", 0, FAKE_BYTES + 1, "RegionNotReady", "CUDA_ERROR_OUT_OF_MEMORY"),
        ("beyond-budget", "b", 0, 97 * MIB, "RegionNotReady", "`memory.gpu`"),
    ] {
        cluster.apply(&on_gpu(name, node, index, bytes))?;
        let says = |region: &MemoryRegion| {
            let conditions = region.status.as_ref().map(|status| &status.conditions);
            let ready = conditions.and_then(|conditions| condition::find(conditions, condition::READY));
            ready.is_some_and(|ready| ready.reason == reason && ready.message.contains(words))
        };
        cluster.wait_region(name, SOON, words, says).await?;
        cluster.delete_region(name).await?;
    }
    cluster.apply(&on_gpu("small", "b", 0, MIB))?;
    cluster.wait_region_ready("small", SOON).await?;
    cluster.apply(&job("too-long", file("a", "file"), &[memory("small")]))?;
    let (reason, message) = cluster.wait_failed("too-long", SOON).await?;
    ensure!(reason == "LengthMismatch", "{reason}: {message}");

    // Another size or the host instead: what was there is freed first.
    cluster.apply(&on_gpu("small", "b", 0, 2 * MIB))?;
    let size = |region: &MemoryRegion| {
        let status = region.status.as_ref()?;
        Some((status.size?, status.device.clone()?))
    };
    let is = |bytes: u64, device: &str| Some((bytes as i64, device.to_owned()));
    cluster.wait_region("small", SOON, "larger", |region| size(region) == is(2 * MIB, "cuda:0")).await?;
    ensure!(cluster.gpu_memory_held("b")? == 1);
    cluster.apply(&held_by_agent("small", "b", 2 * MIB))?;
    cluster.wait_region("small", SOON, "on the host", |region| size(region) == is(2 * MIB, "cpu")).await?;
    cluster.wait_node("b", SOON, "free", |node| free(node, 0) == Some(96 * MIB)).await?;
    nothing_held(&cluster, &["b"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn gpu_memory_that_goes_while_it_is_used_ends_the_attempt_with_its_reason() -> Result<()> {
    let places = Sockets::new()?;
    let gpus = Gpus::new(places.of("gpus"), 1)?;
    let mut cluster = Setup::nodes(&["a", "b"]).agent_config("b", gpus.config()).start().await?;
    write_file(&cluster.path("a", "file"), LENGTH, 1)?;
    let slowly = |mut job: Value| {
        job["spec"]["transport"] = json!({"bandwidthLimit": "256Ki"});
        job
    };
    cluster.apply(&on_gpu("gone", "b", 0, LENGTH))?;
    cluster.wait_region_ready("gone", SOON).await?;
    cluster.apply(&slowly(job("into", file("a", "file"), &[memory("gone")])))?;
    cluster.wait_moving("into", 1, SOON).await?;
    cluster.delete_region("gone").await?;
    let waits = |job: &TransferJob| {
        let destination = job.status.as_ref().and_then(|status| status.destinations.first());
        destination.is_some_and(|it| it.reason.as_deref() == Some("RegionNotFound"))
    };
    cluster.wait_for("into", SOON, "waiting for the region", waits).await?;
    cluster.wait_node("b", SOON, "free", |node| free(node, 0) == Some(1 << 30)).await?;
    ensure!(cluster.gpu_memory_held("b")? == 0, "nobody has it any more");

    // Made anew, and its agent is killed under the next attempt: the memory is gone with it, and comes anew.
    cluster.apply(&on_gpu("gone", "b", 0, LENGTH))?;
    cluster.wait_moving("into", 1, SOON).await?;
    cluster.agent_mut("b").kill9()?;
    cluster.agent_mut("b").restart()?;
    let mut quickly = job("into", file("a", "file"), &[memory("gone")]);
    quickly["spec"]["transport"] = json!({});
    cluster.apply(&quickly)?;
    cluster.wait_complete("into", SOON).await?;
    cluster.apply(&job("back", memory("gone"), &[file("a", "back")]))?;
    cluster.wait_complete("back", SOON).await?;
    assert_same_content(&cluster.path("a", "file"), &cluster.path("a", "back"))?;
    cluster.delete_region("gone").await?;
    cluster.wait_node("b", SOON, "free", |node| free(node, 0) == Some(1 << 30)).await?;
    nothing_held(&cluster, &["b"]).await
}

/// With faults of a fake GPU.
#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_damages_bytes_or_ends_no_copy_fails_the_attempt_and_is_never_believed() -> Result<()> {
    let places = Sockets::new()?;
    let gpus = Gpus::new(places.of("gpus"), 1)?;
    let cluster = Setup::nodes(&["a", "b"]).agent_config("b", gpus.config()).start().await?;
    write_file(&cluster.path("a", "file"), LENGTH, 1)?;
    cluster.apply(&on_gpu("gpu", "b", 0, LENGTH))?;
    cluster.wait_region_ready("gpu", SOON).await?;
    let once = |name: &str, source: Value, to: Value| {
        let mut job = job(name, source, &[to]);
        job["spec"]["backoffLimit"] = json!(0);
        job["spec"]["progressDeadlineSeconds"] = json!(4);
        job
    };
    let (into, back) = (|name: &str| once(name, file("a", "file"), memory("gpu")), file("a", "back"));
    for (fault, expected) in [("damage", "IntegrityError"), ("hang", "ProgressDeadlineExceeded")] {
        gpus.fault(fault, true)?;
        cluster.apply(&into(fault))?;
        let (reason, message) = cluster.wait_failed(fault, SOON).await?;
        ensure!(
            reason == "BackoffLimitExceeded" && message.contains(expected),
            "{fault}: {reason}: {message}"
        );
        gpus.fault(fault, false)?;
        let region = cluster.regions().get("gpu").await?;
        ensure!(region.status.is_some_and(|status| status.content.is_none()), "{fault}: that is no content");
    }
    // The same memory is good again.
    cluster.apply(&into("well"))?;
    cluster.wait_complete("well", SOON).await?;
    gpus.fault("hang", true)?;
    cluster.apply(&once("hang-out", memory("gpu"), back.clone()))?;
    let (reason, message) = cluster.wait_failed("hang-out", SOON).await?;
    ensure!(message.contains("ProgressDeadlineExceeded"), "{reason}: {message}");
    gpus.fault("hang", false)?;
    cluster.apply(&once("out", memory("gpu"), back))?;
    cluster.wait_complete("out", SOON).await?;
    assert_same_content(&cluster.path("a", "file"), &cluster.path("a", "back"))?;
    cluster.assert_nothing_left(&["a", "b"], SOON).await
}
