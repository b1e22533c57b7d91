//! A job in a chart: Helm 4 waits until it is done, and what Helm tracks is not deleted by its TTL.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use devcluster::{ADMIN, Assets};
use nixl_transfer_tests::{
    Cluster, Setup,
    cluster::NAMESPACE,
    data::{assert_same, write_file},
    jobs::{is_complete, one_to_one, with},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// Runs helm as administrator; what it keeps stays in the cluster's directory.
fn helm(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    let program = Assets::find()?.helm.context("no helm in .tools/bin: run `cargo xtask tools`")?;
    let mut command = Command::new(program);
    for home in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(home, cluster.directory().join("helm"));
    }
    command.arg("--kubeconfig").arg(cluster.plane.kubeconfig(ADMIN)).args(["--namespace", NAMESPACE]);
    let output = command.args(arguments).output().context("helm")?;
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    ensure!(output.status.success(), "helm {arguments:?}: {said}");
    Ok(said)
}

/// A chart of this one job.
fn chart(cluster: &Cluster, job: &Value) -> Result<String> {
    let directory = cluster.directory().join("chart");
    fs::create_dir_all(directory.join("templates"))?;
    fs::write(directory.join("Chart.yaml"), "{apiVersion: v2, name: models, version: 0.1.0}\n")?;
    fs::write(directory.join("templates/job.yaml"), job.to_string())?;
    Ok(directory.display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_waits_for_a_job_and_keeps_it() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b"]).start().await?;
    for (path, seed) in [("file", 1), ("next", 2)] {
        write_file(&cluster.path("a", path), 2 * MIB, seed)?;
    }
    // It takes two seconds, which a Helm that does not wait does not.
    let slow = |path: &str| {
        let job = with(one_to_one("model", ("a", path), ("b", "copy")), "ttlSecondsAfterFinished", json!(0));
        with(job, "transport", json!({"bandwidthLimit": "1Mi", "chunkSize": "64Ki"}))
    };
    for (command, path, run) in [("install", "file", 1), ("upgrade", "next", 2)] {
        let chart = chart(&cluster, &slow(path))?;
        helm(&cluster, &[command, "models", &chart, "--wait", "--timeout", "60s"])?;
        let job = cluster.jobs().get("model").await?;
        ensure!(is_complete(&job), "{command} has not waited:\n{}", cluster.explain("model").await);
        assert_same(&cluster.path("a", path), &cluster.path("b", "copy"))?;
        let status = job.status.context("a status")?;
        ensure!(status.run == run && status.ttl_ignored.is_some(), "{status:?}");
    }
    helm(&cluster, &["uninstall", "models", "--wait"])?;
    cluster.wait_gone("model", SOON).await
}
