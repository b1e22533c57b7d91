//! What a TransferNode shows of its node, and that it shows what changes within 30 s.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use devcluster::Volume;
use kube::Api;
use nixl_transfer_crds::{
    TransferNode, condition,
    node::{TransferNodeStatus, devices::LinkState},
};
use nixl_transfer_tests::{Cluster, OwnMount, Setup};
use serde_json::json;

use crate::operations::metric;

#[path = "../../../agent/tests/fixtures/sysfs/tree.rs"]
pub(crate) mod tree;

/// What the issue promises.
const SHOWN_WITHIN: Duration = Duration::from_secs(30);
const PORT: &str = "devices/pci0000:20/0000:20:03.1/0000:21:00.0/infiniband/mlx5_0/ports/1";

/// Waits until the status of node `a` is as wanted.
async fn shown(cluster: &Cluster, what: &str, wanted: impl Fn(&TransferNodeStatus) -> bool) -> Result<()> {
    let nodes: Api<TransferNode> = Api::all(cluster.client());
    let is_so = |node: Option<&TransferNode>| node.and_then(|node| node.status.as_ref()).is_some_and(&wanted);
    let waited = kube::runtime::wait::await_condition(nodes.clone(), "a", is_so);
    if let Ok(waited) = tokio::time::timeout(SHOWN_WITHIN, waited).await {
        waited?;
        return Ok(());
    }
    let status = nodes.get("a").await?.status;
    anyhow::bail!("not shown in time: {what}: {}", serde_yaml::to_string(&status)?)
}

fn ready_message(status: &TransferNodeStatus) -> &str {
    condition::find(&status.conditions, condition::READY).map_or("", |ready| &ready.message)
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_and_volumes_are_shown_and_what_changes_is_shown_soon() -> Result<()> {
    let own = OwnMount::new("inventory")?;
    let (sysfs, mounted) = (own.directory().join("sys"), own.path().display().to_string());
    std::fs::create_dir(&sysfs)?;
    tree::build(&sysfs, include_str!("../../../agent/tests/fixtures/sysfs/nic-down.tree"))?;
    tree::build(&sysfs, &format!("{PORT}/counters/port_xmit_data = 1000\nmodule/nvidia_fs/version = 2\n"))?;
    let mut volume = Volume::new("data");
    volume.path = Some(own.path());
    let cluster = Setup::nodes(&["a"])
        .volumes("a", vec![volume])
        .agent_binary("a", own.agent())
        .agent_config("a", json!({"sysfs": sysfs}))
        .start()
        .await?;

    shown(&cluster, "the devices of the tree", |status| {
        let names: Vec<&str> = status.nics.iter().map(|nic| nic.name.as_str()).collect();
        names == ["mlx5_0", "mlx5_1", "eno1", "eno2"]
            && (status.nics[0].state, status.nics[1].state) == (LinkState::Active, LinkState::Down)
            && (status.nics[0].pci_bus_id.as_str(), status.nics[0].numa_node) == ("0000:21:00.0", Some(0))
            && status.gpu_direct.is_some_and(|modules| modules.storage_module)
            && ready_message(status) == "ready for transfers"
    })
    .await?;
    let metrics = cluster.agent("a").metrics()?;
    ensure!(metric(&metrics, "nixl_transfer_nic_info", "") == 4.0, "{metrics}");
    ensure!(metric(&metrics, "nixl_transfer_nic_transmit_bytes_total", "mlx5_0") == 4000.0, "{metrics}");

    let agent = cluster.agent("a").pid().context("the agent runs")?;
    // A link goes down, a module is unloaded, and the volume's file system is remounted.
    std::fs::write(sysfs.join(PORT).join("state"), "1: DOWN\n")?;
    std::fs::remove_dir_all(sysfs.join("module/nvidia_fs"))?;
    OwnMount::run(agent, &["mount", "-o", "remount,ro", &mounted])?;
    shown(&cluster, "a link that is down, a volume that is read-only", |status| {
        status.nics.first().is_some_and(|nic| nic.state == LinkState::Down && nic.rate.is_none())
            && status.gpu_direct.is_none()
            && status.volumes.first().is_some_and(|volume| volume.read_only)
            && ready_message(status).contains("volume data is read-only")
    })
    .await?;
    let metrics = cluster.agent("a").metrics()?;
    ensure!(metric(&metrics, "nixl_transfer_nic_info", "state=\"Active\"") == 2.0, "{metrics}");

    // Another file system is mounted over it, and unmounted again.
    OwnMount::run(agent, &["mount", "-t", "tmpfs", "none", &mounted])?;
    shown(&cluster, "no volume", |status| {
        status.volumes.is_empty() && ready_message(status).contains("volume data is not published")
    })
    .await?;
    OwnMount::run(agent, &["umount", &mounted])?;
    shown(&cluster, "the volume again", |status| status.volumes.len() == 1).await?;
    Ok(())
}
