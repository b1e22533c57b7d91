//! What the two sides of a task say to each other is nobody else's: it is sealed in the status, opens for one task only, and
//! stands in no log, event or metric.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use nixl_transfer_crds::{TransferTask, task::status::SourceSide};
use nixl_transfer_tests::{
    Cluster, Setup,
    data::{assert_same_content, write_file},
    jobs::{one_to_one, to_receivers, with},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_sealed_and_stands_in_no_log_event_or_metric() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b", "c"]).start().await?;
    write_file(&cluster.path("a", "file"), 9 * MIB, 1)?;
    // Direct, a chain, and within a node.
    cluster.apply(&one_to_one("one", ("a", "file"), ("b", "one")))?;
    let chain = to_receivers("chain", ("a", "file"), "chain");
    cluster.apply(&with(chain, "transport", json!({"fanOut": "Chain", "chunkSize": "1Mi"})))?;
    cluster.apply(&one_to_one("within", ("a", "file"), ("a", "within")))?;
    for job in ["one", "chain", "within"] {
        cluster.wait_complete(job, SOON).await?;
    }
    assert_same_content(&cluster.path("a", "file"), &cluster.path("c", "chain"))?;
    // Of events and all other objects every version is looked at.
    let look = cluster.look()?;
    let metadata = &look.secrets.metadata;
    ensure!(metadata.len() >= 4, "metadata of both sides was seen: {}", metadata.len());
    ensure!(metadata.iter().all(|text| text.starts_with("sealed:")), "something stood there in plain");
    ensure!(look.told.is_empty(), "{:#?}", look.told);
    for place in
        ["nodes/a/agent.log", "metrics of node a's agent", "operator/operator.log", "the operator's metrics"]
    {
        ensure!(look.places.contains(place), "{place} was not looked at");
    }
    ensure!(look.places.iter().any(|place| place.starts_with("/registry/events/")), "there were events");
    cluster.assert_nothing_left(&["a", "b", "c"], SOON).await
}

/// A task from node a to a node that only this test knows, whose key is that of node b's agent.
async fn to_impostor(cluster: &Cluster, name: &str) -> Result<()> {
    let node = |name: &str| -> Result<Value> {
        Ok(serde_json::from_str(&cluster.plane.kubectl(&["get", "tn", name, "-o", "json"])?)?)
    };
    let (a, b) = (node("a")?, node("b")?);
    let impostor = json!({
        "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "TransferNode", "metadata": {"name": "elsewhere"}, "spec": {},
    });
    cluster.plane.apply_text(&impostor.to_string())?;
    let mut status = b["status"].clone();
    status["instance"] = json!("2");
    let nodes: kube::Api<nixl_transfer_crds::TransferNode> = kube::Api::all(cluster.client());
    let patch = Patch::Merge(json!({"status": status}));
    nodes.patch_status("elsewhere", &PatchParams::default(), &patch).await?;
    let task = json!({
        "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "TransferTask",
        "metadata": {"name": name, "namespace": "default", "labels": {"nixl-transfer.io/job": "by-hand"}},
        "spec": {
            "jobRef": {"name": "by-hand", "uid": "0"}, "run": 1, "attempt": 0, "failures": 0, "direction": "Write",
            "source": {"nodeName": "a", "instance": a["status"]["instance"], "volume": {"name": "data", "path": "file"}},
            "target": {"nodeName": "elsewhere", "nodeUID": "1", "instance": "2", "destination": "d", "volume": {"name": "data", "path": name}},
            "transport": {"chunkSize": "1Mi", "inFlight": 1, "backends": ["UCX"]}, "integrity": {}, "writePolicy": "SkipIdentical",
            "deadlines": {"pendingSeconds": 30, "progressSeconds": 30}, "cancel": false
        }
    });
    cluster.plane.apply_text(&task.to_string())?;
    Ok(())
}

async fn source_failed(cluster: &Cluster, task: &str) -> Result<SourceSide> {
    let source = |task: &TransferTask| task.status.as_ref()?.source.clone();
    let failed =
        |task: Option<&TransferTask>| task.and_then(source).is_some_and(|side| side.state.is_terminal());
    let waited = kube::runtime::wait::await_condition(cluster.tasks(), task, failed);
    let task = tokio::time::timeout(SOON, waited).await.context(cluster.logs())??;
    task.as_ref().and_then(source).context("a half")
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_of_another_task_or_in_plain_is_refused() -> Result<()> {
    let mut cluster = Setup::nodes(&["a", "b"]).start().await?;
    write_file(&cluster.path("a", "file"), 4 * MIB, 1)?;
    cluster.apply(&one_to_one("good", ("a", "file"), ("b", "copy")))?;
    cluster.wait_complete("good", SOON).await?;
    // It would delete tasks that are of no job.
    drop(cluster.operator.take());
    // What b's agent has said to a's; the longer one of both.
    let stolen = cluster.look()?.secrets.metadata.into_iter().max_by_key(String::len);
    let stolen = stolen.context("metadata was seen")?;
    let plain = r#"{"descriptors":[],"nixl_metadata":"b64:eJw=","notification_key":"k","operation_kind":2}"#;
    for (name, metadata, words) in [
        ("stolen", stolen.as_str(), "not sealed for this task"),
        ("plain", plain, "is not sealed"),
        ("cut", &stolen[..stolen.len() - 8], "not sealed for this task"),
        ("garbage", "sealed:AAAA", "no sealed text"),
    ] {
        to_impostor(&cluster, name).await?;
        let half = json!({"status": {"target": {"state": "Prepared", "worker": "elsewhere", "rdmaMetadata": metadata}}});
        cluster.tasks().patch_status(name, &PatchParams::default(), &Patch::Merge(half)).await?;
        let side = source_failed(&cluster, name).await?;
        let (reason, message) = (side.reason.unwrap_or_default(), side.message.unwrap_or_default());
        ensure!(reason == "MetadataRejected" && message.contains(words), "{name}: {reason}: {message}");
    }
    cluster.agent("a").wait_ready()
}
