//! Jobs that follow what nodes there are, and the labels of nodes that hold data, on a real control plane.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use kube::api::DeleteParams;
use nixl_transfer_crds::{TransferJob, condition};
use nixl_transfer_tests::{
    Cluster, Setup,
    data::{assert_same, write_file},
    jobs::{condition_of, is_complete, one_to_one, to_receivers, with},
};
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

fn is(job: &TransferJob, kind: &str) -> bool {
    job.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, kind))
}

/// Nodes that the job has served, by its status.
fn served(job: &TransferJob) -> Vec<String> {
    let shown = job.status.as_ref().map(|status| status.destinations.as_slice()).unwrap_or_default();
    shown.iter().map(|entry| entry.node.clone()).collect()
}

/// Waits until the job is Ready with these nodes.
async fn wait_ready(cluster: &Cluster, job: &str, nodes: &[&str]) -> Result<TransferJob> {
    let what = format!("Ready with {nodes:?}");
    cluster.wait_for(job, SOON, &what, |job| is(job, condition::READY) && served(job) == nodes).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_later_or_comes_back_gets_its_copy() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b", "c"]).start().await?;
    write_file(&cluster.path("a", "file"), MIB, 1)?;
    cluster.set_role("c", "none")?;
    cluster.apply(&with(to_receivers("follow", ("a", "file"), "copy"), "follow", json!(true)))?;
    wait_ready(&cluster, "follow", &["b"]).await?;

    // Its label makes another node one of them. It is slow, so that the job is seen to be behind.
    let change = json!({"spec": {"transport": {"bandwidthLimit": "512Ki"}}}).to_string();
    cluster.plane.kubectl(&["patch", "tj/follow", "--type=merge", "--patch", &change])?;
    cluster.set_role("c", "receiver")?;
    let behind = |job: &TransferJob| is(job, condition::RECONCILING) && !is(job, condition::READY);
    let job = cluster.wait_for("follow", SOON, "behind", behind).await?;
    ensure!(is_complete(&job), "Complete, once True, stays");
    let job = wait_ready(&cluster, "follow", &["b", "c"]).await?;
    assert_same(&cluster.path("a", "file"), &cluster.path("c", "copy"))?;
    ensure!(job.status.as_ref().is_some_and(|status| status.run == 1), "it is one run");

    // A node leaves, which is no failure, and comes back under its name: as another node, with an empty disk.
    let since = |job: &TransferJob| {
        let status = job.status.clone().unwrap_or_default();
        condition::find(&status.conditions, condition::READY).map(|ready| ready.last_transition_time.clone())
    };
    let nodes = cluster.nodes();
    nodes.delete("c", &DeleteParams::default()).await?;
    let without = wait_ready(&cluster, "follow", &["b"]).await?;
    ensure!(since(&without) == since(&job), "it was Ready all the time");
    fs::remove_file(cluster.path("c", "copy"))?;
    cluster.plane.create_node("c", &[("role".to_owned(), "receiver".to_owned())].into())?;
    wait_ready(&cluster, "follow", &["b", "c"]).await?;
    assert_same(&cluster.path("a", "file"), &cluster.path("c", "copy"))?;
    let uid = nodes.get("c").await?.metadata.uid;
    let of_c: Vec<_> = cluster.tasks_of("follow").await?;
    let of_c: Vec<_> = of_c.into_iter().filter(|task| task.spec.target.node_name == "c").collect();
    ensure!(of_c.iter().all(|task| Some(&task.spec.target.node_uid) == uid.as_ref()), "told apart by UID");

    // Where nothing matches, it is Ready.
    cluster.set_role("b", "none")?;
    cluster.set_role("c", "none")?;
    let job = wait_ready(&cluster, "follow", &[]).await?;
    let (_, _, message) = condition_of(&job, condition::READY).context("Ready")?;
    ensure!(message.contains("no node matches"), "{message}");

    // The administrator has not allowed labels: said at once, and what to do.
    let mut labelling = one_to_one("labelling", ("a", "file"), ("b", "labelled"));
    labelling["spec"]["labelNodes"] = json!(true);
    cluster.apply(&labelling)?;
    let (reason, message) = cluster.wait_failed("labelling", SOON).await?;
    ensure!(reason == "InvalidSpec" && message.contains("operator.labelNodes"), "{reason}: {message}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_labelled_as_long_as_they_hold_the_data() -> Result<()> {
    const KEY: &str = "data.nixl-transfer.io/default.labelling";
    let mut cluster = Setup::nodes(&["a", "b", "c"]).operator_argument("--label-nodes").start().await?;
    cluster.may_label()?;
    write_file(&cluster.path("a", "file"), MIB, 1)?;
    write_file(&cluster.path("a", "next"), 4 * MIB, 2)?;
    let job = with(to_receivers("labelling", ("a", "file"), "copy"), "labelNodes", json!(true));
    cluster.apply(&job)?;
    let done = cluster.wait_complete("labelling", SOON).await?;
    ensure!(done.status.and_then(|status| status.node_label).as_deref() == Some(KEY), "the status names it");
    for node in ["b", "c"] {
        cluster.wait_label(node, KEY, Some("ready"), SOON).await?;
    }
    cluster.wait_label("a", KEY, None, SOON).await?;

    // Other content: no label says that it is there before it is.
    let mut next = with(job, "transport", json!({"bandwidthLimit": "512Ki", "fanOut": "Direct"}));
    next["spec"]["source"]["volume"]["path"] = json!("next");
    cluster.apply(&next)?;
    let moving = |job: &TransferJob| {
        let status = job.status.clone().unwrap_or_default();
        status.run == 2 && status.progress.is_some_and(|progress| progress.bytes_done > 0)
    };
    cluster.wait_for("labelling", SOON, "moving again", moving).await?;
    let nodes = cluster.nodes();
    for node in ["b", "c"] {
        let labels = nodes.get(node).await?.metadata.labels.unwrap_or_default();
        let moved = fs::metadata(cluster.path(node, "copy"))?.len() == 4 * MIB;
        ensure!(moved || !labels.contains_key(KEY), "{node} is labelled, and does not hold the data");
    }
    cluster.wait_complete("labelling", SOON).await?;
    for node in ["b", "c"] {
        cluster.wait_label(node, KEY, Some("ready"), SOON).await?;
    }

    // A job that goes while no operator looks: the labels on the nodes tell the next one.
    cluster.operator_mut().kill9()?;
    cluster.jobs().delete("labelling", &DeleteParams::default()).await?;
    cluster.operator_mut().restart()?;
    for node in ["b", "c"] {
        cluster.wait_label(node, KEY, None, SOON).await?;
    }
    ensure!(Path::new(&cluster.path("b", "copy")).is_file(), "the data stays");
    Ok(())
}
