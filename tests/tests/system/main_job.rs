//! The main job, end to end: what a user applies becomes bytes on other nodes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use nixl_transfer_crds::{TransferJob, condition, job::status::Phase};
use nixl_transfer_tests::{
    Cluster, Setup,
    data::{assert_same, assert_same_content, write_file, write_tree},
    jobs::{condition_of, is_complete, one_to_one, to_receivers, with, writes_between},
};
use serde_json::{Value, json};

use crate::faults::is_gone;

const SOON: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;

async fn patch(cluster: &Cluster, name: &str, spec: Value) -> Result<TransferJob> {
    let patch = Patch::Merge(json!({"spec": spec}));
    Ok(cluster.jobs().patch(name, &PatchParams::default(), &patch).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_moves_with_all_that_a_tree_can_have() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b"]).start().await?;
    write_tree(&cluster.path("a", "in"), 300, 40 * MIB)?;
    cluster.apply(&one_to_one("tree", ("a", "in"), ("b", "deep/er/out")))?;
    let job = cluster.wait_complete("tree", SOON).await?;
    assert_same(&cluster.path("a", "in"), &cluster.path("b", "deep/er/out"))?;

    let status = job.status.clone().context("status")?;
    let progress = status.progress.context("progress")?;
    ensure!(progress.bytes_done == progress.bytes_total && progress.bytes_total > 40 << 20, "{progress:?}");
    ensure!(progress.files_done == progress.files_total && progress.files_total == 305, "{progress:?}");
    ensure!(status.phase == Some(Phase::Complete), "{:?}", status.phase);
    let transport = status.transport.context("transport")?;
    ensure!((transport.backend.as_str(), transport.network.as_str()) == ("UCX", "tcp"), "{transport:?}");
    ensure!(transport.fallback_reason.as_deref() == Some("NoRdmaDevice"), "{transport:?}");
    ensure!(status.destinations[0].digest.as_deref().is_some_and(|digest| digest.starts_with("xxh3:")));
    let (ready, reason, _) = condition_of(&job, condition::READY).context("Ready")?;
    ensure!((ready.as_str(), reason.as_str()) == ("True", "Succeeded"));
    ensure!(
        condition_of(&job, condition::RECONCILING).is_none()
            && condition_of(&job, condition::STALLED).is_none()
    );

    // Capabilities are gone from the record when a side is terminal.
    for task in cluster.tasks_of("tree").await? {
        let status = task.status.context("task status")?;
        ensure!(status.source.is_some_and(|side| side.agent_metadata.is_none()));
        ensure!(status.target.is_some_and(|side| side.rdma_metadata.is_none()));
    }
    cluster.assert_nothing_left(&["a", "b"], SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_source_reaches_three_nodes() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b", "c", "d"]).start().await?;
    write_tree(&cluster.path("a", "in"), 100, 30 * MIB)?;
    cluster.apply(&to_receivers("three", ("a", "in"), "out"))?;
    let job = cluster.wait_complete("three", SOON).await?;
    for node in ["b", "c", "d"] {
        assert_same(&cluster.path("a", "in"), &cluster.path(node, "out"))?;
    }
    let nodes = job.status.and_then(|status| status.nodes).context("nodes")?;
    ensure!((nodes.desired, nodes.succeeded, nodes.failed) == (3, 3, 0), "{nodes:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_digest_filter_and_write_policy_works() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b"]).start().await?;
    write_tree(&cluster.path("a", "in"), 30, MIB)?;
    for (name, algorithm, prefix) in
        [("crc", "CRC64NVME", "crc64nvme:"), ("blake", "BLAKE3", "blake3:"), ("xxh", "XXH3", "xxh3:")]
    {
        let job = one_to_one(name, ("a", "in/large.bin"), ("b", &format!("{name}.bin")));
        cluster.apply(&with(job, "integrity", json!({"algorithm": algorithm, "readBack": true})))?;
        let job = cluster.wait_complete(name, SOON).await?;
        let digest = job.status.and_then(|status| status.destinations[0].digest.clone()).context("digest")?;
        ensure!(digest.starts_with(prefix), "{digest}");
        assert_same(&cluster.path("a", "in/large.bin"), &cluster.path("b", &format!("{name}.bin")))?;
    }

    let mut filtered = one_to_one("filtered", ("a", "in"), ("b", "filtered"));
    filtered["spec"]["source"]["volume"]["include"] = json!(["*.bin"]);
    filtered["spec"]["source"]["volume"]["exclude"] = json!(["small/00/**"]);
    cluster.apply(&filtered)?;
    cluster.wait_complete("filtered", SOON).await?;
    let out = cluster.path("b", "filtered");
    ensure!(out.join("large.bin").exists() && out.join("small/01/file-1.bin").exists());
    ensure!(!out.join("empty").exists() && !out.join("small/00/file-0.bin").exists());

    // FailIfExists refuses before anything is changed; SkipIdentical leaves equal files alone; Overwrite replaces them.
    let inode =
        |path: &std::path::Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
    let before = inode(&out.join("large.bin"));
    let refuse =
        with(one_to_one("refuse", ("a", "in"), ("b", "filtered")), "writePolicy", json!("FailIfExists"));
    cluster.apply(&refuse)?;
    let (reason, message) = cluster.wait_failed("refuse", SOON).await?;
    ensure!(reason == "DestinationExists" && message.contains("writePolicy"), "{reason}: {message}");
    ensure!(!out.join("empty").exists(), "FailIfExists changed something before it refused");
    std::fs::write(out.join("small/01/file-1.bin"), b"other content")?;
    cluster.apply(&one_to_one("skip", ("a", "in"), ("b", "filtered")))?;
    cluster.wait_complete("skip", SOON).await?;
    ensure!(inode(&out.join("large.bin")) == before, "an identical file was replaced");
    assert_same(&cluster.path("a", "in/small"), &out.join("small"))?;
    let replace =
        with(one_to_one("replace", ("a", "in"), ("b", "filtered")), "writePolicy", json!("Overwrite"));
    cluster.apply(&replace)?;
    cluster.wait_complete("replace", SOON).await?;
    ensure!(inode(&out.join("large.bin")) != before, "Overwrite did not replace");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_source_is_refused_and_an_empty_file_moves() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b"]).start().await?;
    std::fs::create_dir_all(cluster.path("a", "nothing"))?;
    write_file(&cluster.path("a", "empty"), 0, 0)?;
    cluster.apply(&one_to_one("nothing", ("a", "nothing"), ("b", "out")))?;
    cluster.apply(&one_to_one("empty", ("a", "empty"), ("b", "empty")))?;
    let (reason, message) = cluster.wait_failed("nothing", SOON).await?;
    ensure!(reason == "SourceEmpty" && message.contains("nothing"), "{reason}: {message}");
    cluster.wait_complete("empty", SOON).await?;
    ensure!(std::fs::metadata(cluster.path("b", "empty"))?.len() == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_bounded_for_a_file_much_larger_than_the_staging_memory() -> Result<()> {
    let setup = Setup::nodes(&["a", "b"]);
    let small = json!({"staging": "64Mi"});
    let cluster = setup.agent_config("a", small.clone()).agent_config("b", small).start().await?;
    write_file(&cluster.path("a", "large"), 2048 * MIB, 1)?;
    cluster.apply(&one_to_one("large", ("a", "large"), ("b", "large")))?;
    let mut peaks = std::collections::BTreeMap::new();
    let done = cluster.wait_complete("large", Duration::from_secs(120));
    tokio::pin!(done);
    loop {
        tokio::select! {
            ended = &mut done => { ended?; break; }
            () = tokio::time::sleep(Duration::from_millis(50)) => for node in ["a", "b"] {
                for worker in cluster.workers(node) {
                    let peak = Cluster::peak_rss(worker.pid).unwrap_or(0);
                    peaks.entry((node, worker.pid)).and_modify(|old: &mut u64| *old = peak.max(*old)).or_insert(peak);
                }
            }
        }
    }
    for ((node, pid), peak) in &peaks {
        println!("worker {pid} on {node}: peak RSS {} MiB", peak / MIB);
    }
    ensure!(peaks.len() >= 2, "no worker was seen: {peaks:?}");
    // The libraries of NIXL and UCX take some tens of MiB; a leak of the file's size would show.
    ensure!(peaks.values().all(|peak| *peak < 256 * MIB), "{peaks:?}");
    assert_same(&cluster.path("a", "large"), &cluster.path("b", "large"))
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_jobs_at_once_all_arrive() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b", "c"]).start().await?;
    let mut documents = String::new();
    for at in 0..50 {
        write_file(&cluster.path("a", &format!("in/{at}")), 100_000 + at, at)?;
        let job = to_receivers(&format!("job-{at}"), ("a", &format!("in/{at}")), &format!("out/{at}"));
        documents.push_str(&format!("---\n{job}\n"));
    }
    cluster.plane.apply_text(&documents)?;
    for at in 0..50 {
        cluster.wait_complete(&format!("job-{at}"), Duration::from_secs(120)).await?;
    }
    for node in ["b", "c"] {
        assert_same_content(&cluster.path("a", "in"), &cluster.path(node, "out"))?;
    }
    cluster.assert_nothing_left(&["a", "b", "c"], SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn suspend_stops_and_resume_goes_on() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b"]).start().await?;
    write_file(&cluster.path("a", "large"), 1024 * MIB, 1)?;
    cluster.apply(&one_to_one("pause", ("a", "large"), ("b", "large")))?;
    cluster.wait_partial("b", 64 * MIB, SOON).await?;
    let busy = cluster.busy_workers("b");
    ensure!(!busy.is_empty(), "no worker writes");
    patch(&cluster, "pause", json!({"suspend": true})).await?;
    let suspended = cluster
        .wait_for("pause", SOON, "suspended", |job| condition_of(job, condition::SUSPENDED).is_some())
        .await?;
    let (ready, reason, _) = condition_of(&suspended, condition::READY).context("Ready")?;
    ensure!((ready.as_str(), reason.as_str()) == ("False", "Suspended"), "{ready} {reason}");
    ensure!(condition_of(&suspended, condition::RECONCILING).is_none());
    // Before a half is reported as ended its worker is, or a peer could still write into its memory.
    for worker in busy {
        ensure!(is_gone(worker.pid), "the target is reported as ended, and its worker {} lives", worker.pid);
    }
    ensure!(!cluster.path("b", "large").exists(), "a suspended file has a name already");

    patch(&cluster, "pause", json!({"suspend": false})).await?;
    let job = cluster.wait_complete("pause", Duration::from_secs(60)).await?;
    ensure!(condition_of(&job, condition::SUSPENDED).is_none());
    let task = cluster.tasks_of("pause").await?.pop().context("a task")?;
    ensure!(task.spec.attempt == 1 && task.spec.failures == 0, "suspension counted as a failure");
    let target = task.status.and_then(|status| status.target).context("a half")?;
    ensure!(target.bytes_resumed > Some(0), "a resumed suspension began anew: {target:?}");
    assert_same(&cluster.path("a", "large"), &cluster.path("b", "large"))?;
    cluster.assert_nothing_left(&["a", "b"], SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_trigger_runs_again_and_a_changed_limit_does_not() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b"]).start().await?;
    write_file(&cluster.path("a", "file"), 1000, 1)?;
    let slow = json!({"bandwidthLimit": "64Ki"});
    cluster.apply(&with(one_to_one("again", ("a", "file"), ("b", "file")), "transport", slow))?;
    let first = cluster.wait_complete("again", SOON).await?;
    write_file(&cluster.path("a", "file"), MIB, 2)?;
    patch(&cluster, "again", json!({"backoffLimit": 5, "transport": {"bandwidthLimit": "512Ki"}})).await?;
    let tuned = cluster.wait_terminal("again", SOON).await?;
    ensure!(tuned.status.as_ref().map(|status| status.run) == Some(1) && is_complete(&tuned));
    let since = Instant::now();
    patch(&cluster, "again", json!({"trigger": "v2"})).await?;
    let second = cluster
        .wait_for("again", SOON, "complete in run 2", |job| {
            job.status.as_ref().is_some_and(|status| status.run == 2) && is_complete(job)
        })
        .await?;
    // Its limit is obeyed: no machine is slow enough to make this wrong.
    ensure!(since.elapsed() > Duration::from_millis(1900), "1 MiB took {:?}", since.elapsed());
    ensure!(first.uid() == second.uid());
    assert_same(&cluster.path("a", "file"), &cluster.path("b", "file"))?;
    ensure!(cluster.tasks_of("again").await?.len() == 1, "tasks of the old run are kept");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_change_while_running_starts_over_with_the_new_spec() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b"]).start().await?;
    write_file(&cluster.path("a", "large"), 1024 * MIB, 1)?;
    write_file(&cluster.path("a", "other"), 5 * MIB, 2)?;
    cluster.apply(&one_to_one("change", ("a", "large"), ("b", "large")))?;
    cluster.wait_partial("b", 10 * MIB, SOON).await?;
    cluster.apply(&one_to_one("change", ("a", "other"), ("b", "other")))?;
    let job = cluster.wait_complete("change", SOON).await?;
    ensure!(job.status.context("status")?.run == 2);
    assert_same(&cluster.path("a", "other"), &cluster.path("b", "other"))?;
    ensure!(!cluster.path("b", "large").exists(), "the cancelled run left a file");
    cluster.assert_nothing_left(&["a", "b"], SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_while_running_leaves_nothing() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b", "c"]).start().await?;
    write_file(&cluster.path("a", "large"), 1024 * MIB, 1)?;
    cluster.apply(&to_receivers("gone", ("a", "large"), "large"))?;
    cluster.wait_partial("b", 10 * MIB, SOON).await?;
    cluster.jobs().delete("gone", &DeleteParams::default()).await?;
    cluster.wait_no_tasks("gone", SOON).await?;
    cluster.assert_nothing_left(&["a", "b", "c"], SOON).await?;
    for node in ["b", "c"] {
        ensure!(!cluster.path(node, "large").exists(), "a deleted job left a file on {node}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_deleted_while_running_is_not_stuck() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b"]).with_controller_manager().start().await?;
    write_file(&cluster.path("a", "large"), 1024 * MIB, 1)?;
    cluster.plane.kubectl(&["create", "namespace", "short-lived"])?;
    let mut job = one_to_one("gone", ("a", "large"), ("b", "large"));
    job["metadata"]["namespace"] = json!("short-lived");
    cluster.apply(&job)?;
    cluster.wait_partial("b", 10 * MIB, SOON).await?;
    cluster.plane.kubectl(&["delete", "namespace", "short-lived", "--wait=true", "--timeout=60s"])?;
    cluster.assert_nothing_left(&["a", "b"], SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_hop_costs_at_most_eight_writes_and_idle_agents_only_their_leases() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b"]).start().await?;
    write_file(&cluster.path("a", "file"), MIB, 1)?;
    let before = cluster.api_writes()?;
    let since = std::time::Instant::now();
    cluster.apply(&one_to_one("cheap", ("a", "file"), ("b", "file")))?;
    cluster.wait_complete("cheap", SOON).await?;
    let took = since.elapsed();
    let writes = writes_between(&before, &cluster.api_writes()?);
    println!("API writes of a one-hop job of {took:?}, the user's own create among them: {writes:?}");
    // Eight, and what a job may write about itself in each whole second that it takes on a busy machine.
    ensure!(writes.values().sum::<u64>() <= 8 + took.as_secs(), "{took:?}: {writes:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_within_one_node_arrives() -> Result<()> {
    let cluster = Setup::nodes(&["a"]).start().await?;
    write_tree(&cluster.path("a", "in"), 20, 5 * MIB)?;
    cluster.apply(&one_to_one("local", ("a", "in"), ("a", "copy")))?;
    cluster.wait_complete("local", SOON).await?;
    assert_same(&cluster.path("a", "in"), &cluster.path("a", "copy"))?;
    cluster.assert_nothing_left(&["a"], SOON).await
}
