//! The network that a hop is allowed and the one that it used: in the status, the metrics and the events, on nodes whose sysfs
//! shows RDMA ports. There are none: what is shown is that nobody says there were.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use nixl_transfer_tests::{
    Cluster, OwnMount, Setup,
    data::{assert_same, write_file},
    jobs::one_to_one,
};
use serde_json::{Value, json};

use crate::{inventory::tree, operations::metric};

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// A directory that plays `/sys`: two RDMA devices, of which `mlx5_1` is down. With `down`, both.
pub(crate) fn sysfs(directory: &Path, down: bool) -> Result<Value> {
    std::fs::create_dir(directory)?;
    tree::build(directory, include_str!("../../../agent/tests/fixtures/sysfs/nic-down.tree"))?;
    if down {
        let port = "devices/pci0000:20/0000:20:03.1/0000:21:00.0/infiniband/mlx5_0/ports/1/state";
        std::fs::write(directory.join(port), "1: DOWN\n")?;
    }
    Ok(json!({"sysfs": directory, "network": {"devices": ["lo", "mlx5_0", "mlx5_1"]}}))
}

/// Events about the job with one of the fallback reasons.
fn fallback_events(cluster: &Cluster, job: &str) -> Result<Vec<String>> {
    let events = cluster.plane.kubectl(&["get", "events.events.k8s.io", "-A", "-o", "json"])?;
    let events: Value = serde_json::from_str(&events)?;
    let items = events["items"].as_array().context("items")?;
    let of_job = items.iter().filter(|event| event["regarding"]["name"] == job);
    Ok(of_job
        .filter(|event| event["action"] == "UseNetwork")
        .map(|event| format!("{}: {}", event["reason"], event["note"]))
        .collect())
}

/// Runs the job, and gives network, devices and fallback reason of its one hop.
async fn used(cluster: &Cluster, name: &str) -> Result<(String, Vec<String>, Option<String>)> {
    cluster.apply(&one_to_one(name, ("a", "file"), ("b", name)))?;
    cluster.wait_complete(name, SOON).await?;
    assert_same(&cluster.path("a", "file"), &cluster.path("b", name))?;
    let task = cluster.tasks_of(name).await?.into_iter().next().context("a task")?;
    let half = task.status.and_then(|status| status.target).context("a half")?;
    let transport = half.transport.context("a transport")?;
    Ok((transport.network, transport.devices, transport.fallback_reason))
}

#[tokio::test(flavor = "multi_thread")]
async fn rdma_that_is_shown_and_not_used_is_a_fallback_that_people_hear_of() -> Result<()> {
    let own = OwnMount::new("network")?;
    let setup = Setup::nodes(&["a", "b"])
        .agent_config("a", sysfs(&own.directory().join("sys-a"), false)?)
        .agent_config("b", sysfs(&own.directory().join("sys-b"), false)?);
    let cluster = setup.start().await?;
    write_file(&cluster.path("a", "file"), 8 * MIB, 1)?;
    let found = used(&cluster, "any").await?;
    // Where a worker may lock too little, that comes first.
    let reason = found.2.clone().context("a reason")?;
    ensure!(["NoCommonBackend", "MemlockTooSmall"].contains(&reason.as_str()), "{found:?}");
    ensure!((found.0.as_str(), found.1) == ("tcp", vec!["lo".to_owned()]), "{}", found.0);
    let metrics = cluster.agent("b").metrics()?;
    ensure!(metric(&metrics, "nixl_transfer_fallbacks_total", &reason) == 1.0, "{metrics}");
    ensure!(metric(&metrics, "nixl_transfer_throughput_bytes_per_second_count", "") == 1.0, "{metrics}");
    let events = fallback_events(&cluster, "any")?;
    ensure!(events.len() == 1 && events[0].contains(&reason), "{events:?}");

    let mut required = one_to_one("required", ("a", "file"), ("b", "required"));
    required["spec"]["transport"] = json!({"require": "Rdma"});
    cluster.apply(&required)?;
    let (failed, message) = cluster.wait_failed("required", SOON).await?;
    ensure!(failed == "BackendUnavailable", "{failed}: {message}");
    ensure!(!cluster.path("b", "required").exists());
    cluster.assert_nothing_left(&["a", "b"], SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_down_is_named_and_within_a_node_nobody_asks_for_one() -> Result<()> {
    let own = OwnMount::new("link")?;
    let setup = Setup::nodes(&["a", "b"]).agent_config("b", sysfs(&own.directory().join("sys-b"), true)?);
    let cluster = setup.start().await?;
    write_file(&cluster.path("a", "file"), 8 * MIB, 1)?;
    let found = used(&cluster, "down").await?;
    ensure!(found == ("tcp".into(), vec!["lo".into()], Some("LinkDown".into())), "{found:?}");
    let events = fallback_events(&cluster, "down")?;
    ensure!(events.len() == 1 && events[0].contains("LinkDown"), "{events:?}");

    let mut required = one_to_one("required", ("b", "down"), ("a", "back"));
    required["spec"]["transport"] = json!({"require": "Rdma"});
    cluster.apply(&required)?;
    let (failed, message) = cluster.wait_failed("required", SOON).await?;
    ensure!(failed == "BackendUnavailable", "{failed}: {message}");
    let of_either = message.contains("node a has no RDMA device") || message.contains("mlx5_0:1 is Down");
    ensure!(of_either && message.contains("spec.transport.require"), "{message}");

    let mut within = one_to_one("within", ("b", "down"), ("b", "copy"));
    within["spec"]["transport"] = json!({"require": "Rdma"});
    cluster.apply(&within)?;
    cluster.wait_complete("within", SOON).await?;
    Ok(())
}
