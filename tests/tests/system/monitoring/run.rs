//! A run that causes everything there is a metric for, on three nodes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use devcluster::Prometheus;
use nixl_transfer_tests::{
    Cluster, OwnMount, Setup,
    data::write_file,
    gpus::Gpus,
    jobs::{one_to_one, to_receivers},
    regions::{file, held_by_agent, job, memory},
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{faults::signal, network::sysfs, operations::metric};

const SOON: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;
const GUARD: &str = "nothing-named-refused";

/// Node `a` sends, damages one chunk of each hop, and has a GPU; `b` has RDMA ports that are down; `c` takes one hop at a time.
pub async fn start(own: &OwnMount) -> Result<(Cluster, Gpus)> {
    let gpus = Gpus::new(own.directory().join("gpus"), 1)?;
    let mut a = gpus.config();
    a["faults"] = json!({"corruptChunk": 3});
    let devices = own.directory().join("sys");
    let b = sysfs(&devices, true)?;
    let counters =
        devices.join("devices/pci0000:20/0000:20:03.1/0000:21:00.0/infiniband/mlx5_0/ports/1/counters");
    std::fs::create_dir_all(&counters)?;
    std::fs::write(counters.join("port_xmit_data"), "1000\n")?;
    let setup = Setup::nodes(&["a", "b", "c"])
        .agent_config("a", a)
        .agent_config("b", b)
        .agent_config("c", json!({"slots": 1}));
    Ok((setup.start().await?, gpus))
}

/// Returns when all has ended.
pub async fn everything(cluster: &Cluster, prometheus: &Prometheus) -> Result<()> {
    guard(cluster).await?;
    cluster.apply(&one_to_one("refused", ("a", "small"), ("b", "refused")))?;
    write_file(&cluster.path("a", "small"), 8 * MIB, 1)?;
    write_file(&cluster.path("a", "large"), 160 * MIB, 2)?;
    cluster.gpus_of("a").await?;

    // Slow enough to be seen, in a chain; a worker of it is killed, which costs an attempt.
    let mut chain = to_receivers("chain", ("a", "large"), "large");
    chain["spec"]["transport"] = json!({"bandwidthLimit": "8Mi"});
    cluster.apply(&chain)?;
    cluster.wait_partial("c", 8 * MIB, SOON).await?;
    cluster.apply(&one_to_one("queued", ("a", "small"), ("c", "queued")))?;
    cluster.wait_moving("chain", 1, SOON).await?;
    seen(prometheus, r#"nixl_transfer:jobs:max{phase="Queued"}"#).await?;
    let worker = cluster.busy_workers("c").pop().context("a worker that receives")?;
    signal(worker.pid, Signal::KILL)?;

    cluster.apply(&held_by_agent("buffer", "b", 8 * MIB))?;
    cluster.apply(&job("into-memory", file("a", "small"), &[memory("buffer")]))?;
    cluster.apply(&one_to_one("missing", ("a", "no-such-file"), ("b", "missing")))?;
    cluster.apply(&one_to_one("first", ("a", "small"), ("b", "small")))?;
    cluster.wait_complete("first", SOON).await?;
    // The same again is there already.
    cluster.apply(&one_to_one("again", ("a", "small"), ("b", "small")))?;
    let (reason, message) = cluster.wait_failed("missing", SOON).await?;
    ensure!(reason == "SourceNotFound", "{reason}: {message}");
    lift(cluster).await?;
    seen(prometheus, "nixl_transfer_job_eta_seconds").await?;
    for name in ["refused", "into-memory", "again", "chain", "queued"] {
        cluster.wait_complete(name, LATER).await?;
    }
    Ok(())
}

/// Waits until Prometheus has something, so that it cannot be over between two of its looks.
async fn seen(prometheus: &Prometheus, expression: &str) -> Result<()> {
    let deadline = tokio::time::Instant::now() + SOON;
    while prometheus.get("query", &[("query", expression)])?["result"] == json!([]) {
        ensure!(tokio::time::Instant::now() < deadline, "Prometheus has no {expression}");
        tokio::time::sleep(Duration::from_millis(200)).await; // polls with a deadline
    }
    Ok(())
}

/// An administrator's policy that refuses the tasks of one job, in force when this returns.
async fn guard(cluster: &Cluster) -> Result<()> {
    let rule = |group: &str, resource: &str| json!({"apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE"], "resources": [resource]});
    let object = |kind: &str, spec: Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": GUARD}, "spec": spec});
    let policy = json!({
        "matchConstraints": {"resourceRules": [rule("nixl-transfer.io", "transfertasks"), rule("", "configmaps")]},
        "validations": [{"expression": "!object.metadata.name.startsWith('refused')"}],
    });
    cluster.plane.apply_text(&object("ValidatingAdmissionPolicy", policy).to_string())?;
    let binding = json!({"policyName": GUARD, "validationActions": ["Deny"]});
    cluster.plane.apply_text(&object("ValidatingAdmissionPolicyBinding", binding).to_string())?;
    let deadline = tokio::time::Instant::now() + SOON;
    while cluster.plane.kubectl(&["create", "configmap", "refused", "--dry-run=server"]).is_ok() {
        ensure!(tokio::time::Instant::now() < deadline, "the policy is not in force after {SOON:?}");
        tokio::time::sleep(Duration::from_millis(200)).await; // polls with a deadline
    }
    Ok(())
}

/// Takes it away once the operator has met it.
async fn lift(cluster: &Cluster) -> Result<()> {
    let operator = cluster.operator.as_ref().context("an operator")?;
    let deadline = tokio::time::Instant::now() + SOON;
    while metric(&operator.metrics()?, "nixl_transfer_operator_reconcile_errors_total", "Invalid") == 0.0 {
        ensure!(tokio::time::Instant::now() < deadline, "no write was refused: {}", operator.metrics()?);
        tokio::time::sleep(Duration::from_millis(200)).await; // polls with a deadline
    }
    for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
        cluster.plane.kubectl(&["delete", kind, GUARD])?;
    }
    Ok(())
}
