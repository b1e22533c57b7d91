//! What a TransferNode shows of its node, and that it shows what changes within 30 s.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use devcluster::Volume;
use kube::Api;
use nixl_transfer_crds::{
    TransferNode, condition,
    node::{TransferNodeStatus, devices::LinkState},
};
use nixl_transfer_tests::{Cluster, Setup};
use serde_json::json;

use crate::operations::metric;

#[path = "../../../agent/tests/fixtures/sysfs/tree.rs"]
mod tree;

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

/// Runs a command in the mount namespace of an agent.
fn within(cluster: &Cluster, command: &[&str]) -> Result<()> {
    let agent = cluster.agent("a").pid().context("the agent runs")?.to_string();
    let output = Command::new("nsenter")
        .args(["--target", &agent, "--user", "--preserve-credentials", "--mount", "--"])
        .args(command)
        .output()
        .context("nsenter")?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A program that mounts a file system of its own at a path, then becomes the agent; needs no root where users may make
/// namespaces.
fn agent_with_mount(script: &Path, mounted: &Path) -> Result<()> {
    let agent = devcluster::binary("transfer-agent")?;
    let text = format!(
        "#!/bin/sh\nexec unshare --user --map-root-user --mount sh -c 'mount -t tmpfs -o size=64m none {} && exec {} \"$@\"' agent \"$@\"\n",
        mounted.display(),
        agent.display()
    );
    std::fs::write(script, text)?;
    Ok(std::fs::set_permissions(script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?)
}

fn empty_directory() -> Result<PathBuf> {
    let directory = std::env::temp_dir().join(format!("nixl-transfer-inventory-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(directory.join("volume"))?;
    std::fs::create_dir_all(directory.join("sys"))?;
    Ok(directory)
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_and_volumes_are_shown_and_what_changes_is_shown_soon() -> Result<()> {
    let space = empty_directory()?;
    let (sysfs, mounted, script) = (space.join("sys"), space.join("volume"), space.join("agent.sh"));
    tree::build(&sysfs, include_str!("../../../agent/tests/fixtures/sysfs/nic-down.tree"))?;
    tree::build(&sysfs, &format!("{PORT}/counters/port_xmit_data = 1000\nmodule/nvidia_fs/version = 2\n"))?;
    agent_with_mount(&script, &mounted)?;
    let mut volume = Volume::new("data");
    volume.path = Some(mounted.clone());
    let cluster = Setup::nodes(&["a"])
        .volumes("a", vec![volume])
        .agent_binary("a", script)
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

    // A link goes down, a module is unloaded, and the volume's file system is remounted.
    std::fs::write(sysfs.join(PORT).join("state"), "1: DOWN\n")?;
    std::fs::remove_dir_all(sysfs.join("module/nvidia_fs"))?;
    within(&cluster, &["mount", "-o", "remount,ro", &mounted.display().to_string()])?;
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
    within(&cluster, &["mount", "-t", "tmpfs", "none", &mounted.display().to_string()])?;
    shown(&cluster, "no volume", |status| {
        status.volumes.is_empty() && ready_message(status).contains("volume data is not published")
    })
    .await?;
    within(&cluster, &["umount", &mounted.display().to_string()])?;
    shown(&cluster, "the volume again", |status| status.volumes.len() == 1).await?;
    std::fs::remove_dir_all(space)?;
    Ok(())
}
