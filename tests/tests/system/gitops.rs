//! Jobs from Git: deleted after their end unless a tool would make them again, run again only when asked to, left alone when
//! others manage them, and in order of priority.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::DeleteParams;
use nixl_transfer_crds::{
    TransferJob,
    job::{TransferJobStatus, status::Phase},
};
use nixl_transfer_tests::{
    Cluster, Setup,
    cluster::NAMESPACE,
    data::{assert_same, write_file},
    jobs::{one_to_one, with},
    refusals::Refusals,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// A job that is deleted right after its end, with labels and annotations.
fn brief(name: &str, path: &str, labels: Value, annotations: Value) -> Value {
    let mut job = with(
        one_to_one(name, ("a", path), ("b", &format!("{name}-copy"))),
        "ttlSecondsAfterFinished",
        json!(0),
    );
    job["metadata"]["labels"] = labels;
    job["metadata"]["annotations"] = annotations;
    job
}

/// Messages of the events of that reason about the job.
fn events(cluster: &Cluster, job: &str, reason: &str) -> Result<Vec<String>> {
    let all = cluster.plane.kubectl(&["get", "events.events.k8s.io", "-n", NAMESPACE, "-o", "json"])?;
    let all: Value = serde_json::from_str(&all)?;
    let wanted = |event: &&Value| event["regarding"]["name"] == job && event["reason"] == reason;
    let items = all["items"].as_array().into_iter().flatten();
    Ok(items.filter(wanted).filter_map(|event| event["note"].as_str().map(str::to_owned)).collect())
}

/// Waits for the first such event.
async fn wait_event(cluster: &Cluster, job: &str, reason: &str) -> Result<String> {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        if let Some(message) = events(cluster, job, reason)?.pop() {
            return Ok(message);
        }
        ensure!(tokio::time::Instant::now() < deadline, "no event {reason}:\n{}", cluster.explain(job).await);
        tokio::time::sleep(Duration::from_millis(50)).await; // polls with a deadline
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_job_is_deleted_unless_a_tool_would_make_it_again() -> Result<()> {
    let mut cluster = Setup::nodes(&["a", "b"]).start().await?;
    write_file(&cluster.path("a", "file"), MIB, 1)?;
    let none = || json!({});
    // Complete, and Failed; both with the tasks.
    cluster.apply(&brief("plain", "file", none(), none()))?;
    cluster.apply(&brief("missing", "absent", none(), none()))?;
    for job in ["plain", "missing"] {
        cluster.wait_gone(job, SOON).await?;
        cluster.wait_no_tasks(job, SOON).await?;
    }
    assert_same(&cluster.path("a", "file"), &cluster.path("b", "plain-copy"))?;

    let tracking =
        json!({"argocd.argoproj.io/tracking-id": "app:nixl-transfer.io/TransferJob:default/tracked"});
    cluster.apply(&brief("tracked", "file", none(), tracking))?;
    let job = cluster.wait_complete("tracked", SOON).await?;
    let message = wait_event(&cluster, "tracked", "TTLIgnored").await?;
    ensure!(message.contains("tracking-id") && message.contains("Remove the TTL"), "{message}");
    ensure!(job.status.context("a status")?.ttl_ignored.is_some(), "it stands in the status too");
    let hook = json!({"argocd.argoproj.io/hook": "PreSync"});
    cluster.apply(&brief("hook", "file", json!({"argocd.argoproj.io/instance": "app"}), hook))?;
    cluster.wait_gone("hook", SOON).await?;

    // An operator that starts anew says it no second time. What it does after that proves that it has looked.
    cluster.operator_mut().restart()?;
    cluster.apply(&brief("later", "file", none(), none()))?;
    cluster.wait_gone("later", SOON).await?;
    let version = job.metadata.resource_version;
    ensure!(
        cluster.jobs().get("tracked").await?.metadata.resource_version == version,
        "it was written again"
    );
    let said = events(&cluster, "tracked", "TTLIgnored")?;
    ensure!(said.len() == 1, "said more than once: {said:?}");
    Ok(())
}

/// Waits until the operator has seen this version of the spec; gives the number of the run.
async fn seen(cluster: &Cluster, name: &str) -> Result<i64> {
    let seen = |job: &TransferJob| {
        job.status.as_ref().is_some_and(|status| status.observed_generation == job.metadata.generation)
    };
    let job = cluster.wait_for(name, SOON, "seen", seen).await?;
    Ok(job.status.context("a status")?.run)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_never_runs_again_runs_when_triggered() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b"]).start().await?;
    for (path, seed) in [("file", 1), ("other", 2)] {
        write_file(&cluster.path("a", path), MIB, seed)?;
    }
    let mut job = with(one_to_one("once", ("a", "file"), ("b", "copy")), "rerunPolicy", json!("Never"));
    cluster.apply(&job)?;
    cluster.wait_complete("once", SOON).await?;
    // What is moved cannot be changed, and how it is moved starts nothing.
    let mut refusals = Refusals::default();
    for (what, pointer, value) in [
        ("another source", "/spec/source/volume/path", json!("other")),
        ("another destination", "/spec/destinations/0/volume/path", json!("elsewhere")),
    ] {
        let mut changed = job.clone();
        *changed.pointer_mut(pointer).context("a field")? = value;
        refusals.expect(
            what,
            &["immutable while rerunPolicy is Never", "OnSpecChange"],
            cluster.apply(&changed),
        );
    }
    refusals.finish()?;
    job["spec"]["integrity"] = json!({"algorithm": "BLAKE3"});
    job["spec"]["writePolicy"] = json!("Overwrite");
    cluster.apply(&job)?;
    ensure!(seen(&cluster, "once").await? == 1, "a change of integrity has started a run");
    job["spec"]["trigger"] = json!("again");
    cluster.apply(&job)?;
    let again = cluster.wait_complete("once", SOON).await?.status.context("a status")?;
    let digest = again.destinations[0].digest.clone().unwrap_or_default();
    ensure!(again.run == 2 && digest.starts_with("blake3:"), "run {} {digest}", again.run);
    // Both at once: that is one decision.
    job["spec"]["rerunPolicy"] = json!("OnSpecChange");
    job["spec"]["source"]["volume"]["path"] = json!("other");
    cluster.apply(&job)?;
    let other = cluster.wait_complete("once", SOON).await?.status.context("a status")?;
    ensure!(other.run == 3, "run {}", other.run);
    assert_same(&cluster.path("a", "other"), &cluster.path("b", "copy"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_others_manage_is_left_alone() -> Result<()> {
    let mut cluster = Setup::nodes(&["a", "b"]).start().await?;
    write_file(&cluster.path("a", "file"), MIB, 1)?;
    let managed = |name: &str, by: &str| {
        let job = with(one_to_one(name, ("a", "file"), ("b", name)), "managedBy", json!(by));
        with(job, "ttlSecondsAfterFinished", json!(3600))
    };
    let theirs = managed("theirs", "kueue.x-k8s.io/multikueue");
    cluster.apply(&theirs)?;
    cluster.apply(&managed("ours", "nixl-transfer.io/operator"))?;
    cluster.wait_complete("ours", SOON).await?;
    cluster.operator_mut().restart()?;
    cluster.apply(&one_to_one("later", ("a", "file"), ("b", "later")))?;
    cluster.wait_complete("later", SOON).await?;
    let job = cluster.jobs().get("theirs").await?;
    let untouched = TransferJobStatus { observed_generation: Some(-1), ..TransferJobStatus::default() };
    ensure!(job.status.as_ref() == Some(&untouched), "{:?}", job.status);
    ensure!(cluster.tasks_of("theirs").await?.is_empty(), "tasks of a job that others manage");
    let mut refusals = Refusals::default();
    let words = &["managedBy is immutable", "delete the job"];
    refusals.expect("another manager", words, cluster.apply(&managed("theirs", "nixl-transfer.io/operator")));
    refusals.expect("no manager", words, cluster.apply(&with(theirs, "managedBy", Value::Null)));
    refusals.finish()?;
    cluster.jobs().delete("theirs", &DeleteParams::default()).await?;
    cluster.wait_gone("theirs", SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_those_that_wait_for_a_slot_the_highest_priority_goes_first() -> Result<()> {
    let setup = Setup::nodes(&["a", "b"]).agent_config("a", json!({"slots": 1}));
    let cluster = setup.start().await?;
    write_file(&cluster.path("a", "file"), 2 * MIB, 1)?;
    let slow = |name: &str, priority: i32, rate: &str| {
        let job = with(one_to_one(name, ("a", "file"), ("b", name)), "priority", json!(priority));
        with(job, "transport", json!({"bandwidthLimit": rate, "chunkSize": "64Ki"}))
    };
    // It has the slot until all others wait.
    cluster.apply(&slow("first", -9, "64Ki"))?;
    let active = |job: &TransferJob| {
        job.status.as_ref().and_then(|it| it.nodes).is_some_and(|nodes| nodes.active == 1)
    };
    cluster.wait_for("first", SOON, "under way", active).await?;
    // The one that matters more comes last.
    for (name, priority) in [("lowest", -5), ("middle", 0), ("highest", 7)] {
        cluster.apply(&slow(name, priority, "1Mi"))?;
        let queued =
            |job: &TransferJob| job.status.as_ref().is_some_and(|status| status.phase == Some(Phase::Queued));
        cluster.wait_for(name, SOON, "queued", queued).await?;
    }
    cluster.jobs().delete("first", &DeleteParams::default()).await?;
    let mut begun = Vec::new();
    for name in ["lowest", "middle", "highest"] {
        cluster.wait_complete(name, SOON).await?;
        let task = cluster.tasks_of(name).await?.pop().context("a task")?;
        begun.push((task.metadata.creation_timestamp.map(|time| time.0), name));
    }
    begun.sort();
    let order: Vec<_> = begun.iter().map(|(_, name)| *name).collect();
    ensure!(order == ["highest", "middle", "lowest"], "{begun:?}");
    Ok(())
}
