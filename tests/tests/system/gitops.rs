//! Jobs from Git: deleted after their end unless a tool would make them again, run again only when asked to, left alone when
//! others manage them, and in order of priority.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nixl_transfer_tests::{
    Cluster, Setup,
    cluster::NAMESPACE,
    data::{assert_same, write_file},
    jobs::{one_to_one, with},
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
