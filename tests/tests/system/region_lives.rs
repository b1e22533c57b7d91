//! What becomes of transfers when a region of theirs goes, changes or loses its agent, and that regions that come and go
//! leave nothing behind. Regions beside those that are used are filled with what nobody may change or read.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use nixl_transfer_crds::{MemoryRegion, TransferJob, condition};
use nixl_transfer_tests::{
    Cluster, Setup,
    data::{assert_same_content, write_file},
    jobs::with,
    regions::{file, held_by_agent, job, memory},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
/// No multiple of anything.
const LENGTH: u64 = 5 * MIB + 4097;

/// Slow enough to be interrupted.
fn slowly(job: Value) -> Value {
    with(with(job, "transport", json!({"bandwidthLimit": "512Ki"})), "backoffLimit", json!(3))
}

fn quickly(job: Value) -> Value {
    with(job, "transport", json!({}))
}

/// Fills a region of each node with a file that only this has, and says which.
async fn canaries(cluster: &Cluster) -> Result<Vec<(&'static str, &'static str)>> {
    let all = vec![("a", "canary-on-a"), ("b", "canary-on-b")];
    for (node, name) in &all {
        write_file(&cluster.path(node, name), LENGTH, 77)?;
        cluster.apply(&held_by_agent(name, node, LENGTH))?;
        cluster.apply(&job(&format!("fill-{name}"), file(node, name), &[memory(name)]))?;
        cluster.wait_complete(&format!("fill-{name}"), SOON).await?;
    }
    Ok(all)
}

/// Fails unless each of them holds what it was filled with.
async fn assert_untouched(cluster: &Cluster, canaries: &[(&str, &str)]) -> Result<()> {
    for (node, name) in canaries {
        let (read, copy) = (format!("read-{name}"), format!("read-{name}"));
        cluster.apply(&job(&read, memory(name), &[file(node, &copy)]))?;
        cluster.wait_complete(&read, SOON).await?;
        assert_same_content(&cluster.path(node, name), &cluster.path(node, &copy))?;
    }
    Ok(())
}

/// Waits until the job says this word, and gives what it says.
async fn wait_reason(cluster: &Cluster, name: &str, reason: &str) -> Result<String> {
    let found = |job: &TransferJob| {
        let ready = condition::find(&job.status.as_ref()?.conditions, condition::READY)?;
        ready.message.contains(reason).then(|| ready.message.clone())
    };
    let job = cluster.wait_for(name, SOON, reason, |job| found(job).is_some()).await?;
    found(&job).context("a message")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_goes_or_changes_while_it_is_used_ends_the_attempt_with_its_reason() -> Result<()> {
    let mut cluster = Setup::nodes(&["a", "b"]).start().await?;
    write_file(&cluster.path("a", "file"), LENGTH, 1)?;
    let canaries = canaries(&cluster).await?;
    for (name, node) in [("from", "a"), ("into", "b")] {
        cluster.apply(&held_by_agent(name, node, LENGTH))?;
    }
    cluster.apply(&job("fill", file("a", "file"), &[memory("from")]))?;
    cluster.wait_complete("fill", SOON).await?;

    // The destination is deleted, and made again.
    let into = job("into-deleted", memory("from"), &[memory("into")]);
    cluster.apply(&slowly(into.clone()))?;
    cluster.wait_moving("into-deleted", 1, SOON).await?;
    cluster.delete_region("into").await?;
    wait_reason(&cluster, "into-deleted", "RegionNotFound").await?;
    cluster.apply(&held_by_agent("into", "b", LENGTH))?;
    cluster.apply(&quickly(into))?;
    cluster.wait_complete("into-deleted", SOON).await?;

    // The destination is given another size: too small, and then large enough.
    let into = job("into-resized", memory("from"), &[memory("into")]);
    cluster.apply(&slowly(into.clone()))?;
    cluster.wait_moving("into-resized", 1, SOON).await?;
    cluster.apply(&held_by_agent("into", "b", LENGTH - 1))?;
    let (reason, message) = cluster.wait_failed("into-resized", SOON).await?;
    ensure!(reason == "LengthMismatch" && message.contains("5246977"), "{reason}: {message}");
    cluster.apply(&held_by_agent("into", "b", LENGTH))?;
    cluster.wait_region_ready("into", SOON).await?;
    cluster.apply(&with(quickly(into), "trigger", json!("again")))?;
    cluster.wait_complete("into-resized", SOON).await?;

    // The source is deleted: what it held is gone for good.
    cluster.apply(&slowly(job("from-deleted", memory("from"), &[file("b", "copy")])))?;
    cluster.wait_moving("from-deleted", 1, SOON).await?;
    cluster.delete_region("from").await?;
    wait_reason(&cluster, "from-deleted", "RegionNotFound").await?;
    cluster.apply(&held_by_agent("from", "a", LENGTH))?;
    let message = wait_reason(&cluster, "from-deleted", "RegionNotReady").await?;
    ensure!(message.contains("holds nothing"), "zeros are nobody's data: {message}");
    cluster.apply(&quickly(job("from-deleted", memory("from"), &[file("b", "copy")])))?;
    cluster.apply(&job("fill-again", file("a", "file"), &[memory("from")]))?;
    cluster.wait_complete("from-deleted", SOON).await?;
    assert_same_content(&cluster.path("a", "file"), &cluster.path("b", "copy"))?;

    // Nobody else's memory was read or written.
    assert_untouched(&cluster, &canaries).await?;

    // The source's agent dies, and its memory with it.
    cluster.apply(&slowly(job("from-restarted", memory("from"), &[file("b", "copy-2")])))?;
    cluster.wait_moving("from-restarted", 1, SOON).await?;
    cluster.agent_mut("a").kill9()?;
    cluster.agent_mut("a").restart()?;
    let message = wait_reason(&cluster, "from-restarted", "holds nothing").await?;
    ensure!(message.contains("RegionNotReady"), "{message}");
    cluster.apply(&quickly(job("from-restarted", memory("from"), &[file("b", "copy-2")])))?;
    cluster.apply(&job("fill-anew", file("a", "file"), &[memory("from")]))?;
    cluster.wait_complete("fill-anew", SOON).await?;
    cluster.wait_complete("from-restarted", SOON).await?;
    assert_same_content(&cluster.path("a", "file"), &cluster.path("b", "copy-2"))?;

    // The destination's agent dies.
    let into = job("into-restarted", memory("from"), &[memory("into")]);
    cluster.apply(&slowly(into.clone()))?;
    cluster.wait_moving("into-restarted", 1, SOON).await?;
    cluster.agent_mut("b").kill9()?;
    cluster.agent_mut("b").restart()?;
    cluster.apply(&quickly(into))?;
    cluster.wait_complete("into-restarted", SOON).await?;
    cluster.apply(&job("out", memory("into"), &[file("a", "copy-3")]))?;
    cluster.wait_complete("out", SOON).await?;
    assert_same_content(&cluster.path("a", "file"), &cluster.path("a", "copy-3"))?;
    cluster.assert_nothing_left(&["a", "b"], SOON).await
}

/// Regions that come, are used and go.
const CYCLES: usize = 500;
/// At once: as many as the nodes have slots.
const AT_ONCE: usize = 4;
/// After so many nothing grows any more.
const SETTLED: usize = 50;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: `cargo xtask endure` runs it"]
async fn regions_that_come_and_go_leave_nothing_behind() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b"]).start().await?;
    write_file(&cluster.path("a", "file"), 64 << 10, 1)?;
    cycles(&cluster, 0..SETTLED).await?;
    let before = held(&cluster).await?;
    cycles(&cluster, SETTLED..CYCLES).await?;
    let after = held(&cluster).await?;
    for (what, (first, last)) in before.iter().map(|(what, first)| (what, (*first, after[what]))) {
        // A leak in every cycle would be many times what is granted here: an allocator does not keep to the byte, and the
        // client of the API server opens a connection more whenever more requests than before are on their way.
        let more = match what {
            _ if what.ends_with("KiB") => 4096,
            _ if what.ends_with("sockets") => 8,
            _ => 0,
        };
        ensure!(
            last <= first + more,
            "{what}: {first} after {SETTLED} cycles, {last} after {CYCLES}: {after:?}"
        );
    }
    cluster.assert_nothing_left(&["a", "b"], SOON).await
}

async fn cycles(cluster: &Cluster, numbers: std::ops::Range<usize>) -> Result<()> {
    stream::iter(numbers)
        .map(|number| async move { cycle(cluster, number).await.with_context(|| format!("cycle {number}")) })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await
}

/// A region comes, a file goes into it, from there to another node, and all of it goes.
async fn cycle(cluster: &Cluster, number: usize) -> Result<()> {
    let name = format!("r{number}");
    let (regions, jobs): (Api<MemoryRegion>, Api<TransferJob>) = (cluster.regions(), cluster.jobs());
    let region = serde_json::from_value(held_by_agent(&name, "a", 64 << 10))?;
    regions.create(&PostParams::default(), &region).await?;
    let (into, out) = (format!("in{number}"), format!("out{number}"));
    let both = [
        job(&into, file("a", "file"), &[memory(&name)]),
        job(&out, memory(&name), &[file("b", &format!("copy-{}", number % AT_ONCE))]),
    ];
    for job in both {
        let job: TransferJob = serde_json::from_value(job)?;
        let name = job.metadata.name.clone().context("a name")?;
        jobs.create(&PostParams::default(), &job).await?;
        cluster.wait_complete(&name, SOON).await?;
    }
    for job in [into, out] {
        jobs.delete(&job, &DeleteParams::default()).await?;
    }
    regions.delete(&name, &DeleteParams::default()).await?;
    Ok(())
}

/// What the agents hold now, by words: sockets, other descriptors, memory. Waits until regions and workers are gone.
async fn held(cluster: &Cluster) -> Result<BTreeMap<String, u64>> {
    let total = |node: &nixl_transfer_crds::TransferNode| {
        let memory = node.status.as_ref().and_then(|status| status.memory);
        memory.is_some_and(|memory| memory.free == Some(memory.total))
    };
    let mut held = BTreeMap::new();
    for node in ["a", "b"] {
        cluster.wait_node(node, SOON, "free", total).await?;
        let settled = tokio::time::timeout(SOON, async {
            // Polls processes, which give no event.
            while !cluster.busy_workers(node).is_empty() || cluster.workers(node).len() != 2 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        if settled.await.is_err() {
            bail!("workers of {node}: {:?}", cluster.workers(node));
        }
        let control = cluster.agent(node).pid().context("a process")?;
        let launchers = cluster.agent(node).descendants();
        let launcher = launchers.iter().find(|process| process.parent == control).context("a launcher")?.pid;
        for (what, pid) in [("control", control), ("launcher", launcher)] {
            let (sockets, others): (Vec<_>, Vec<_>) = fs::read_dir(format!("/proc/{pid}/fd"))?
                .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
                .partition(|behind| behind.to_string_lossy().starts_with("socket:"));
            held.insert(format!("{node} {what} sockets"), sockets.len() as u64);
            held.insert(format!("{node} {what} other descriptors"), others.len() as u64);
            held.insert(format!("{node} {what} memory KiB"), Cluster::rss(pid).context("memory")? >> 10);
        }
    }
    Ok(held)
}
