//! Faults while bytes move. After each one: the job is Complete or Failed with the right reason, and the rules of the
//! architecture are looked at from outside.

use std::{fs::File, os::unix::fs::FileExt, time::Duration};

use anyhow::{Context, Result, ensure};
use devcluster::{OperatorOptions, binary};
use nixl_transfer_tests::{
    Cluster, Setup,
    data::{assert_same, write_file},
    jobs::{is_complete, one_to_one, to_receivers, with},
    rules::{Frozen, NameWatcher},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
const LARGE: u64 = 1024 * MIB;

pub(crate) fn signal(pid: i32, signal: Signal) -> Result<()> {
    Ok(kill_process(Pid::from_raw(pid).context("a pid")?, signal)?)
}

/// Whether a process has ended.
pub(crate) fn is_gone(pid: i32) -> bool {
    // A zombie runs no code and has no memory: for what it could do it is gone.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
}

async fn wait_gone(pid: i32, within: Duration) -> Result<()> {
    let deadline = tokio::time::Instant::now() + within;
    while !is_gone(pid) {
        ensure!(tokio::time::Instant::now() < deadline, "process {pid} lives after {within:?}");
        tokio::time::sleep(Duration::from_millis(20)).await; // polls a process, which gives no event
    }
    Ok(())
}

/// A cluster in which a large file moves from `a` to `b` under the job `move`, with an old file at the destination
/// whose name is watched from the start (rule 2).
async fn moving(setup: Setup) -> Result<(Cluster, NameWatcher)> {
    let cluster = setup.start().await?;
    write_file(&cluster.path("a", "large"), LARGE, 1)?;
    // Another size, so that a look at the size alone tells old from new; the watcher compares every byte of it.
    write_file(&cluster.path("b", "large"), MIB, 2)?;
    let old = cluster.directory().join("old");
    std::fs::copy(cluster.path("b", "large"), &old)?;
    let watcher = NameWatcher::start(cluster.path("b", "large"), &[&old, &cluster.path("a", "large")])?;
    cluster.apply(&one_to_one("move", ("a", "large"), ("b", "large")))?;
    cluster.wait_partial("b", 20 * MIB, SOON).await?;
    Ok((cluster, watcher))
}

/// The end of such a test: Complete, equal, nothing left, the name never showed anything else, nothing changes later.
async fn recovered(cluster: &Cluster, watcher: NameWatcher, at_least_attempts: usize) -> Result<()> {
    cluster.wait_complete("move", Duration::from_secs(90)).await?;
    let frozen = Frozen::new(&cluster.path("b", "large").parent().context("a directory")?.join(""))?;
    assert_same(&cluster.path("a", "large"), &cluster.path("b", "large"))?;
    cluster.assert_nothing_left(&["a", "b"], SOON).await?;
    watcher.finish()?;
    let tasks = cluster.tasks_of("move").await?;
    let last = tasks.last().context("a task")?;
    ensure!(
        usize::try_from(last.spec.attempt)? + 1 >= at_least_attempts,
        "attempt {} was not expected to be the last",
        last.spec.attempt
    );
    frozen.assert_unchanged()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_source_worker_is_retried() -> Result<()> {
    let (cluster, watcher) = moving(Setup::nodes(&["a", "b"])).await?;
    ensure!(cluster.assert_files_beneath_volumes("a")? > 0, "no file of a volume is open while bytes move");
    let worker = cluster.busy_workers("a").pop().context("a worker on the source")?;
    signal(worker.pid, Signal::KILL)?;
    recovered(&cluster, watcher, 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_target_worker_is_retried() -> Result<()> {
    let (cluster, watcher) = moving(Setup::nodes(&["a", "b"])).await?;
    ensure!(cluster.assert_files_beneath_volumes("b")? > 0, "no file of a volume is open while bytes move");
    let worker = cluster.busy_workers("b").pop().context("a worker on the target")?;
    signal(worker.pid, Signal::KILL)?;
    recovered(&cluster, watcher, 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_takes_its_workers_with_it_and_the_next_one_goes_on() -> Result<()> {
    for node in ["a", "b"] {
        let (mut cluster, watcher) = moving(Setup::nodes(&["a", "b"])).await?;
        let workers = cluster.workers(node);
        ensure!(!workers.is_empty());
        cluster.agent_mut(node).kill9()?;
        for worker in workers {
            wait_gone(worker.pid, Duration::from_secs(5)).await?;
        }
        cluster.agent_mut(node).restart()?;
        recovered(&cluster, watcher, 2).await.with_context(|| format!("agent of {node} killed"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_worker_is_found_and_ended_and_writes_nothing_afterwards() -> Result<()> {
    for node in ["a", "b"] {
        let (cluster, watcher) = moving(Setup::nodes(&["a", "b"])).await?;
        let worker = cluster.busy_workers(node).pop().context("a worker")?;
        signal(worker.pid, Signal::STOP)?;
        // Our own watchdog must act: nothing else would ever find it.
        wait_gone(worker.pid, Duration::from_secs(25)).await?;
        // Nothing is there to continue; a reused pid would be another process, so the error is what we want to see.
        ensure!(signal(worker.pid, Signal::CONT).is_err() || is_gone(worker.pid));
        recovered(&cluster, watcher, 2).await.with_context(|| format!("worker of {node} stopped"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_killed_while_bytes_move_is_not_missed() -> Result<()> {
    let (mut cluster, watcher) = moving(Setup::nodes(&["a", "b"])).await?;
    cluster.operator_mut().restart()?;
    recovered(&cluster, watcher, 1).await?;
    let task = cluster.tasks_of("move").await?.pop().context("a task")?;
    ensure!(task.spec.attempt == 0, "the operator's death cost an attempt");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_dies_after_every_single_write_still_finishes_the_job() -> Result<()> {
    let mut cluster = Setup::nodes(&["a", "b", "c"]).without_operator().start().await?;
    write_file(&cluster.path("a", "file"), 3 * MIB, 1)?;
    cluster.apply(&to_receivers("stubborn", ("a", "file"), "file"))?;
    let mut options = OperatorOptions::new(binary("transfer-operator")?);
    options.extra_arguments = vec!["--exit-after-writes=1".into()];
    cluster.start_operator(options)?;
    let mut deaths = 0;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    loop {
        ensure!(
            tokio::time::Instant::now() < deadline,
            "not complete after {deaths} deaths:\n{}",
            cluster.explain("stubborn").await
        );
        if is_complete(&cluster.jobs().get("stubborn").await?) {
            break;
        }
        if !cluster.operator_mut().is_running() {
            deaths += 1;
            cluster.operator_mut().restart()?;
        }
        tokio::time::sleep(Duration::from_millis(20)).await; // polls a process, which gives no event
    }
    println!("the operator died {deaths} times");
    ensure!(deaths >= 3, "the operator died only {deaths} times");
    for node in ["b", "c"] {
        assert_same(&cluster.path("a", "file"), &cluster.path(node, "file"))?;
    }
    let tasks = cluster.tasks_of("stubborn").await?;
    // A chain of which only a part was written is no chain: what is cut off is planned again, and that is no failure. What
    // that replaced is deleted by a later write.
    ensure!(
        tasks.len() >= 2 && tasks.iter().all(|task| task.spec.failures == 0),
        "{}",
        cluster.explain("stubborn").await
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_seconds_without_an_api_server_disturb_no_running_transfer() -> Result<()> {
    let (mut cluster, watcher) = moving(Setup::nodes(&["a", "b"])).await?;
    cluster.plane.pause();
    // The outage itself is the subject here; nothing is synchronised by this time.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let arrived = std::fs::metadata(cluster.path("b", "large"))?.len();
    cluster.plane.resume()?;
    ensure!(arrived == LARGE, "the transfer did not finish while the API server was away");
    recovered(&cluster, watcher, 1).await?;
    let task = cluster.tasks_of("move").await?.pop().context("a task")?;
    ensure!(task.spec.attempt == 0, "the outage cost an attempt");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_changes_while_it_is_read_is_never_spliced() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b"]).start().await?;
    let source = cluster.path("a", "large");
    // Each change is one system call: there is no half-changed file that a copy could rightly show.
    write_file(&source, LARGE, 1)?;
    let strict = with(one_to_one("strict", ("a", "large"), ("b", "strict")), "backoffLimit", json!(0));
    cluster.apply(&strict)?;
    cluster.wait_partial("b", 20 * MIB, SOON).await?;
    File::options().write(true).open(&source)?.set_len(64 * MIB)?;
    let (reason, message) = cluster.wait_failed("strict", SOON).await?;
    ensure!(reason == "BackoffLimitExceeded" && message.contains("SourceChanged"), "{reason}: {message}");
    ensure!(!cluster.path("b", "strict").exists(), "a spliced file has a name");
    cluster.assert_nothing_left(&["a", "b"], SOON).await?;

    write_file(&source, LARGE, 4)?;
    cluster.apply(&one_to_one("patient", ("a", "large"), ("b", "patient")))?;
    cluster.wait_partial("b", 20 * MIB, SOON).await?;
    // The first block has been read already: a copy that went on would hold its old content.
    File::options().write(true).open(&source)?.write_all_at(&[0xA5; 4096], 0)?;
    cluster.wait_complete("patient", SOON).await?;
    assert_same(&source, &cluster.path("b", "patient"))?;
    let task = cluster.tasks_of("patient").await?.pop().context("a task")?;
    ensure!(task.spec.failures == 1, "the change was not found: {} failures", task.spec.failures);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_deleted_while_bytes_move_is_not_stuck() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b", "c"]).start().await?;
    write_file(&cluster.path("a", "large"), LARGE, 1)?;
    cluster.apply(&to_receivers("shrink", ("a", "large"), "large"))?;
    cluster.wait_partial("c", 10 * MIB, SOON).await?;
    cluster.plane.kubectl(&["delete", "node", "c"])?;
    let job = cluster.wait_complete("shrink", SOON).await?;
    let nodes = job.status.and_then(|status| status.nodes).context("nodes")?;
    ensure!((nodes.desired, nodes.succeeded) == (1, 1), "{nodes:?}");
    assert_same(&cluster.path("a", "large"), &cluster.path("b", "large"))?;
    cluster.assert_nothing_left(&["b", "c"], SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_stays_away_is_fenced_and_named() -> Result<()> {
    let (mut cluster, watcher) = moving(Setup::nodes(&["a", "b"])).await?;
    let deadlines = json!({"spec": {"pendingDeadlineSeconds": 5}}).to_string();
    cluster.plane.kubectl(&["patch", "tj", "move", "--type=merge", "-p", &deadlines])?;
    cluster.agent_mut("b").kill9()?;
    let (reason, message) = cluster.wait_failed("move", Duration::from_secs(120)).await?;
    ensure!(reason == "DeadlineExceeded" && message.contains("agent"), "{reason}: {message}");
    watcher.finish()?;
    cluster.jobs().delete("move", &kube::api::DeleteParams::default()).await?;
    cluster.wait_no_tasks("move", SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_an_api_server_for_longer_than_the_fence_ends_its_transfers() -> Result<()> {
    let mut cluster = Setup::nodes(&["a", "b"]).start().await?;
    write_file(&cluster.path("a", "file"), MIB, 1)?;
    // The sending agent stands still, so the receiving one has a worker with exposed memory and waits.
    cluster.agent("a").signal(Signal::STOP)?;
    cluster.apply(&one_to_one("fenced", ("a", "file"), ("b", "file")))?;
    let prepared = |job: &nixl_transfer_crds::TransferJob| {
        job.status.as_ref().is_some_and(|status| status.nodes.is_some_and(|nodes| nodes.active == 1))
    };
    cluster.wait_for("fenced", SOON, "under way", prepared).await?;
    let deadline = tokio::time::Instant::now() + SOON;
    while cluster.tasks_of("fenced").await?.iter().all(|task| {
        let target = task.status.as_ref().and_then(|status| status.target.as_ref());
        target.is_none_or(|target| target.rdma_metadata.is_none())
    }) {
        ensure!(tokio::time::Instant::now() < deadline, "{}", cluster.explain("fenced").await);
        tokio::time::sleep(Duration::from_millis(50)).await; // polls with a deadline
    }
    let exposed: Vec<i32> = cluster.workers("b").iter().map(|worker| worker.pid).collect();
    cluster.plane.pause();
    // The outage itself is the subject here; nothing is synchronised by this time.
    tokio::time::sleep(Duration::from_secs(45)).await;
    let left: Vec<i32> = cluster.workers("b").iter().map(|worker| worker.pid).collect();
    ensure!(
        exposed.iter().any(|pid| !left.contains(pid)),
        "no worker was ended by the fence: {exposed:?} {left:?}"
    );
    cluster.plane.resume()?;
    cluster.agent("a").signal(Signal::CONT)?;
    cluster.wait_complete("fenced", Duration::from_secs(120)).await?;
    let log = std::fs::read_to_string(cluster.agent("b").log())?;
    ensure!(log.contains("AgentNotReady"), "the fence left no trace in the log");
    assert_same(&cluster.path("a", "file"), &cluster.path("b", "file"))
}
