//! `transfer-operator clear`: before an uninstall no TransferTask is left, whatever its agents do, and every TransferJob is.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use devcluster::{ADMIN, binary};
use nixl_transfer_tests::{
    Cluster, Setup,
    data::write_file,
    jobs::{one_to_one, with},
};
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

fn clear(cluster: &Cluster, seconds: u32) -> Result<String> {
    let output = Command::new(binary("transfer-operator")?)
        .arg("clear")
        .arg("--kubeconfig")
        .arg(cluster.plane.kubeconfig(ADMIN))
        .args(["--deployment", "none", "--timeout-seconds", &seconds.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tasks_go_before_an_uninstall_and_all_jobs_stay() -> Result<()> {
    let mut cluster = Setup::nodes(&["a", "b", "c"]).start().await?;
    write_file(&cluster.path("a", "file"), 8 * MIB, 1)?;
    let slowly = json!({"bandwidthLimit": "256Ki"});
    cluster.apply(&one_to_one("done", ("a", "file"), ("b", "done")))?;
    cluster.wait_complete("done", SOON).await?;
    for (name, node) in [("moving", "b"), ("stuck", "c")] {
        cluster.apply(&with(one_to_one(name, ("a", "file"), (node, name)), "transport", slowly.clone()))?;
        cluster.wait_moving(name, 1, SOON).await?;
    }
    // Nobody on node c will ever say how its half ended.
    cluster.agent_mut("c").kill9()?;
    drop(cluster.operator.take());

    let said = clear(&cluster, 8)?;
    ensure!(
        said.contains("it goes all the same") && said.matches("goes all the same").count() == 1,
        "{said}"
    );
    let tasks = cluster.tasks().list(&Default::default()).await?.items;
    ensure!(tasks.is_empty(), "{tasks:?}");
    let jobs = cluster.jobs().list(&Default::default()).await?.items;
    ensure!(jobs.len() == 3, "{jobs:?}");
    // Of the one that was ended in order, nothing goes on and nothing is left.
    cluster.assert_nothing_left(&["b"], SOON).await?;
    ensure!(!cluster.path("b", "moving").exists());

    // Again, with nothing to do; and without the kind at all.
    let again = clear(&cluster, 8)?;
    ensure!(again.contains("no task is left"), "{again}");
    cluster.plane.kubectl(&["delete", "crd", "transfertasks.nixl-transfer.io"]).context("the kind")?;
    clear(&cluster, 8).map(drop)
}
