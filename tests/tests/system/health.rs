//! What Argo CD, Flux and Helm make of a job: their own engines, on live objects, with the health checks of `examples/gitops`; and these
//! examples, applied.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use devcluster::Assets;
use nixl_transfer_crds::{TransferJob, condition};
use nixl_transfer_tests::{
    Cluster, Setup,
    data::{assert_same_content, write_file},
    jobs::{one_to_one, to_receivers, with},
};
use serde::Deserialize;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
const ARGO_CD_KEY: &str = "resource.customizations.health.nixl-transfer.io_TransferJob";

/// kstatus, which is Flux's and Helm 4's; Argo CD's health check; Flux's expressions.
type Verdicts = [&'static str; 3];
const IN_PROGRESS: Verdicts = ["InProgress", "Progressing", "InProgress"];
const CURRENT: Verdicts = ["Current", "Healthy", "Current"];
const FAILED: Verdicts = ["Failed", "Degraded", "Failed"];
/// Only Argo CD has a word for it.
const SUSPENDED: Verdicts = ["InProgress", "Suspended", "InProgress"];

fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/gitops").join(name)
}

/// The first document of an example.
fn read(name: &str) -> Result<Value> {
    let text = std::fs::read_to_string(example(name))?;
    let first = serde_yaml::Deserializer::from_str(&text).next().context("a document")?;
    Ok(Value::deserialize(first)?)
}

/// The engines with our health checks.
struct Judges {
    program: PathBuf,
    lua: PathBuf,
    cel: PathBuf,
}

impl Judges {
    fn new(cluster: &Cluster) -> Result<Self> {
        let program = Assets::find()?.health.context("no health in .tools/bin: run `cargo xtask tools`")?;
        let (lua, cel) = (cluster.directory().join("health.lua"), cluster.directory().join("health.json"));
        let argo = read("argocd-health.yaml")?;
        std::fs::write(&lua, argo["data"][ARGO_CD_KEY].as_str().context("the script")?)?;
        std::fs::write(&cel, read("flux.yaml")?["spec"]["healthCheckExprs"].to_string())?;
        Ok(Self { program, lua, cel })
    }

    /// What each says of the job as it is now.
    fn ask(&self, cluster: &Cluster, namespace: &str, job: &str) -> Result<Value> {
        let object = cluster.plane.kubectl(&["get", "tj", job, "-n", namespace, "-o", "json"])?;
        let mut command = Command::new(&self.program);
        command.arg(&self.lua).arg(&self.cel).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("health")?;
        child.stdin.take().context("a pipe")?.write_all(object.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "health has failed on {object}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn expect(&self, cluster: &Cluster, job: &str, expected: Verdicts) -> Result<()> {
        let said = self.ask(cluster, "default", job)?;
        let [kstatus, lua, cel] = expected;
        ensure!(
            said == json!({"kstatus": kstatus, "lua": lua, "cel": cel}),
            "{job}: {said}, not {expected:?}"
        );
        Ok(())
    }
}

async fn wait_true(cluster: &Cluster, job: &str, kind: &str) -> Result<TransferJob> {
    let is =
        |job: &TransferJob| job.status.as_ref().is_some_and(|it| condition::is_true(&it.conditions, kind));
    cluster.wait_for(job, SOON, kind, is).await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tools_agree_on_how_a_job_is() -> Result<()> {
    let mut cluster = Setup::nodes(&["a", "b", "c"]).start().await?;
    let judges = Judges::new(&cluster)?;
    write_file(&cluster.path("a", "file"), 4 * MIB, 1)?;
    let slow = || json!({"bandwidthLimit": "256Ki", "chunkSize": "64Ki"});
    let patch = |job: &str, change: Value| {
        cluster.plane.kubectl(&["patch", "tj", job, "--type=merge", "--patch", &change.to_string()])
    };

    // One that nobody has seen, or ever will: to kstatus an object without a status is done.
    cluster.apply(&with(
        one_to_one("theirs", ("a", "file"), ("b", "x")),
        "managedBy",
        json!("other/controller"),
    ))?;
    judges.expect(&cluster, "theirs", IN_PROGRESS)?;
    cluster.apply(&with(one_to_one("job", ("a", "file"), ("b", "slow")), "transport", slow()))?;
    cluster.wait_moving("job", 1, SOON).await?;
    judges.expect(&cluster, "job", IN_PROGRESS)?;
    patch("job", json!({"spec": {"suspend": true}}))?;
    wait_true(&cluster, "job", condition::SUSPENDED).await?;
    judges.expect(&cluster, "job", SUSPENDED)?;
    patch("job", json!({"spec": {"suspend": false, "transport": null}}))?;
    cluster.wait_complete("job", SOON).await?;
    judges.expect(&cluster, "job", CURRENT)?;
    cluster.apply(&one_to_one("missing", ("a", "absent"), ("b", "copy")))?;
    cluster.wait_failed("missing", SOON).await?;
    judges.expect(&cluster, "missing", FAILED)?;

    // One that follows: done, behind with another node, done.
    cluster.set_role("c", "none")?;
    cluster.apply(&with(to_receivers("follow", ("a", "file"), "followed"), "follow", json!(true)))?;
    wait_true(&cluster, "follow", condition::READY).await?;
    judges.expect(&cluster, "follow", CURRENT)?;
    patch("follow", json!({"spec": {"transport": slow()}}))?;
    cluster.set_role("c", "receiver")?;
    wait_true(&cluster, "follow", condition::RECONCILING).await?;
    judges.expect(&cluster, "follow", IN_PROGRESS)?;

    // A change that nobody has seen yet is not done.
    cluster.operator_mut().kill9()?;
    let change = json!({"spec": {"trigger": "again"}}).to_string();
    cluster.plane.kubectl(&["patch", "tj", "job", "--type=merge", "--patch", &change])?;
    judges.expect(&cluster, "job", IN_PROGRESS)
}

/// Flux's kind, as far as the API server must know it.
fn kustomizations() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "kustomizations.kustomize.toolkit.fluxcd.io"},
        "spec": {
            "group": "kustomize.toolkit.fluxcd.io", "scope": "Namespaced",
            "names": {"kind": "Kustomization", "plural": "kustomizations"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_for_gitops_do_what_they_say() -> Result<()> {
    let cluster = Setup::nodes(&["node-a", "node-b"]).operator_argument("--label-nodes").start().await?;
    cluster.may_label()?;
    let judges = Judges::new(&cluster)?;
    write_file(&cluster.path("node-a", "models/llama/weights"), MIB, 1)?;
    for namespace in ["ml", "argocd", "flux-system"] {
        cluster.plane.kubectl(&["create", "namespace", namespace])?;
    }
    cluster.plane.apply_text(&kustomizations().to_string())?;
    let established = [
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "crd/kustomizations.kustomize.toolkit.fluxcd.io",
    ];
    cluster.plane.kubectl(&established)?;

    let complete = |job: &str| {
        let job = format!("tj/{job}");
        cluster.plane.kubectl(&["wait", "--for=condition=Complete", "--timeout=60s", "-n", "ml", &job])
    };
    cluster.plane.apply(&[
        &example("argocd-health.yaml"),
        &example("flux.yaml"),
        &example("argocd-presync.yaml"),
    ])?;
    complete("model-before-sync")?;
    let said = judges.ask(&cluster, "ml", "model-before-sync")?;
    ensure!(said["lua"] == "Healthy", "the hook has not ended for Argo CD: {said}");
    let copied = cluster.path("node-b", "models/llama/weights");
    assert_same_content(&cluster.path("node-a", "models/llama/weights"), &copied)?;

    let scheduled = example("scheduled-where-the-data-is.yaml");
    cluster.plane.apply(&[&scheduled])?;
    complete("model")?;
    let get = |what: &str, path: &str| {
        cluster.plane.kubectl(&["get", what, "-n", "ml", "-o", &format!("jsonpath={{{path}}}")])
    };
    let label = get("tj/model", ".status.nodeLabel")?;
    let wanted: Value =
        serde_json::from_str(&get("deployment/inference", ".spec.template.spec.nodeSelector")?)?;
    ensure!(wanted == json!({label.trim(): "ready"}), "the pods wait for {wanted}, and nodes get {label}");
    cluster.wait_label("node-b", label.trim(), Some("ready"), SOON).await?;
    // From Git it comes again and again, and changes nothing.
    let again = cluster.plane.apply(&[&scheduled])?;
    ensure!(again.lines().all(|line| line.ends_with("unchanged")), "{again}");
    Ok(())
}
