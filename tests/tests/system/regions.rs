//! Memory that agents hold, as source and as destination of jobs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nixl_transfer_tests::{
    Setup,
    data::{assert_same_content, write_file, write_tree},
    regions::{file, held_by_agent, job, memory},
};
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
/// No multiple of anything.
const LENGTH: u64 = 9 * MIB + 4097 + 5;

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_from_files_to_memory_from_memory_to_memory_and_back_to_files() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b", "c"]).start().await?;
    write_file(&cluster.path("a", "file"), LENGTH, 1)?;
    for (name, node) in [("on-a", "a"), ("on-b", "b"), ("on-c", "c")] {
        // One is longer than what comes.
        let room = if name == "on-b" { LENGTH + 3 * MIB } else { LENGTH };
        cluster.apply(&held_by_agent(name, node, room))?;
        let region = cluster.wait_region_ready(name, SOON).await?;
        let status = region.status.context("a status")?;
        ensure!(
            (status.size, status.device.as_deref()) == (Some(i64::try_from(room)?), Some("cpu")),
            "{status:?}"
        );
        ensure!(status.content.is_none(), "nothing was moved there yet");
    }
    // Within a node, then to many of each kind at once, then back.
    cluster.apply(&job("in", file("a", "file"), &[memory("on-a")]))?;
    let moved = cluster.wait_complete("in", SOON).await?;
    let digest = moved.status.context("a status")?.destinations[0].digest.clone().context("a digest")?;
    let on_a = cluster.wait_region("on-a", SOON, "filled", |region| content(region).is_some()).await?;
    ensure!(content(&on_a) == Some((i64::try_from(LENGTH)?, digest.clone(), "in".into())), "{on_a:?}");

    let everywhere =
        [memory("on-b"), memory("on-c"), file("b", "copy"), file("c", "copy"), file("a", "copy")];
    cluster.apply(&job("out", memory("on-a"), &everywhere))?;
    let status = cluster.wait_complete("out", SOON).await?.status.context("a status")?;
    for destination in &status.destinations {
        ensure!(destination.digest.as_ref() == Some(&digest), "{destination:?}");
    }
    // Again, proven otherwise, and read back.
    let mut proven = job("proven", memory("on-a"), &[memory("on-b"), memory("on-c")]);
    proven["spec"]["integrity"] = json!({"algorithm": "BLAKE3", "readBack": true});
    cluster.apply(&proven)?;
    cluster.wait_complete("proven", SOON).await?;
    cluster.apply(&job("out-again", memory("on-a"), &[memory("on-b"), memory("on-c")]))?;
    cluster.wait_complete("out-again", SOON).await?;
    ensure!(status.source.context("a source")?.node == "a");
    for region in ["on-b", "on-c"] {
        let filled = cluster.wait_region(region, SOON, "filled", |region| content(region).is_some()).await?;
        ensure!(
            content(&filled)
                .is_some_and(|(bytes, found, _)| (bytes, found) == (LENGTH as i64, digest.clone()))
        );
    }
    cluster.apply(&job("back", memory("on-b"), &[file("a", "from-b"), file("b", "within")]))?;
    cluster.apply(&job("back-too", memory("on-c"), &[file("a", "from-c")]))?;
    cluster.wait_complete("back", SOON).await?;
    cluster.wait_complete("back-too", SOON).await?;
    let copies =
        [("b", "copy"), ("c", "copy"), ("a", "copy"), ("a", "from-b"), ("a", "from-c"), ("b", "within")];
    for (node, path) in copies {
        assert_same_content(&cluster.path("a", "file"), &cluster.path(node, path))?;
    }
    cluster.assert_nothing_left(&["a", "b", "c"], SOON).await
}

fn content(region: &nixl_transfer_crds::MemoryRegion) -> Option<(i64, String, String)> {
    let content = region.status.as_ref()?.content.as_ref()?;
    Some((content.bytes, content.digest.clone(), content.job.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_and_memory_comes_back() -> Result<()> {
    let config = json!({"memory": {"host": "8Mi"}});
    let cluster = Setup::nodes(&["a", "b"]).agent_config("b", config).start().await?;
    write_file(&cluster.path("a", "file"), MIB + 1, 1)?;
    write_tree(&cluster.path("a", "tree"), 3, 1000)?;
    // In this order: either of them alone would have room.
    cluster.apply(&held_by_agent("small", "b", MIB))?;
    cluster.wait_region_ready("small", SOON).await?;
    cluster.apply(&held_by_agent("large", "b", 7 * MIB + 1))?;
    let why = cluster.wait_region_unready("large", "RegionNotReady", SOON).await?;
    ensure!(why.contains("7Mi are free") && why.contains("memory.host"), "{why}");
    let mut gpu = held_by_agent("gpu", "b", MIB);
    gpu["spec"]["agent"]["device"] = json!("cuda:7");
    cluster.apply(&gpu)?;
    let why = cluster.wait_region_unready("gpu", "NoSuchDevice", SOON).await?;
    ensure!(why.contains("cuda:7"), "{why}");

    for (name, source, to, reason, words) in [
        (
            "too-long",
            file("a", "file"),
            "small",
            "LengthMismatch",
            "1048577 bytes, MemoryRegion small has 1048576",
        ),
        ("tree", file("a", "tree"), "small", "InvalidSpec", "directory"),
        ("gpu", file("a", "file"), "gpu", "NoSuchDevice", "cuda:7"),
    ] {
        cluster.apply(&job(name, source, &[memory(to)]))?;
        let (found, message) = cluster.wait_failed(name, SOON).await?;
        ensure!(found == reason && message.contains(words), "{name}: {found}: {message}");
    }
    // What a failed transfer has left is no content.
    let mut empty = job("empty", memory("small"), &[file("a", "empty")]);
    empty["spec"]["pendingDeadlineSeconds"] = json!(1);
    cluster.apply(&empty)?;
    let (reason, message) = cluster.wait_failed("empty", SOON).await?;
    ensure!(reason == "DeadlineExceeded" && message.contains("holds nothing"), "{reason}: {message}");

    cluster.delete_region("small").await?;
    cluster.wait_region_ready("large", SOON).await?;
    let free = |node: &nixl_transfer_crds::TransferNode| node.status.as_ref()?.memory?.free;
    cluster.wait_node("b", SOON, "charged", |node| free(node) == Some((MIB - 1) as i64)).await?;
    // A smaller one fits, and what is free is free again.
    cluster.apply(&held_by_agent("large", "b", 2 * MIB))?;
    let is_two = |region: &nixl_transfer_crds::MemoryRegion| {
        region.status.as_ref().and_then(|status| status.size) == Some((2 * MIB) as i64)
    };
    cluster.wait_region("large", SOON, "smaller", is_two).await?;
    cluster.wait_node("b", SOON, "charged", |node| free(node) == Some((6 * MIB) as i64)).await?;
    cluster.assert_nothing_left(&["a", "b"], SOON).await
}

/// The example of the README, as it stands there.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_moves_a_file_through_memory_to_another_node() -> Result<()> {
    let cluster = Setup::nodes(&["gpu-a", "gpu-b"]).start().await?;
    write_file(&cluster.path("gpu-a", "weights"), LENGTH, 1)?;
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/memory.yaml");
    cluster.plane.apply_text(&std::fs::read_to_string(example)?)?;
    cluster.wait_complete("spread", SOON).await?;
    assert_same_content(&cluster.path("gpu-a", "weights"), &cluster.path("gpu-b", "weights"))?;
    cluster.assert_nothing_left(&["gpu-a", "gpu-b"], SOON).await
}
