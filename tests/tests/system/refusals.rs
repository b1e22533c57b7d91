//! The rest of the bad-input table: what passes the API server and is refused by the operator or an agent, with the
//! reason and the words that a user reads.

use std::{os::unix::fs::symlink, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use devcluster::Volume;
use kube::api::{Patch, PatchParams};
use nixl_transfer_crds::{TransferTask, condition};
use nixl_transfer_tests::{
    Cluster, OwnMount, Setup,
    data::{assert_same, write_file},
    jobs::{condition_of, one_to_one, to_receivers, with},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;

/// Applies the job, waits for its failure, and checks reason and words.
async fn refused(cluster: &Cluster, job: &Value, reason: &str, words: &[&str]) -> Result<()> {
    let name = job["metadata"]["name"].as_str().context("a name")?;
    cluster.apply(job)?;
    let (got, message) = cluster.wait_failed(name, SOON).await?;
    // A retryable cause stands in the message of BackoffLimitExceeded or DeadlineExceeded.
    ensure!(got == reason || message.contains(reason), "{name}: {got}: {message}");
    for word in words {
        ensure!(message.contains(word), "{name}: no {word:?} in {message:?}");
    }
    Ok(())
}

/// Patient in nothing: waits 2 s for nodes and agents, and retries nothing.
fn hasty(mut job: Value) -> Value {
    job["spec"]["pendingDeadlineSeconds"] = json!(2);
    job["spec"]["backoffLimit"] = json!(0);
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_names_what_it_cannot_resolve() -> Result<()> {
    let mut private = Volume::new("private");
    private.allowed_namespaces = vec!["other".into()];
    let mut archive = Volume::new("archive");
    archive.read_only = true;
    let setup = Setup::nodes(&["a", "b"]).node_without_agent("bare");
    let cluster = setup.volumes("b", vec![Volume::new("data"), private, archive]).start().await?;
    write_file(&cluster.path("a", "in/file"), 10, 1)?;
    let good = |name: &str| hasty(one_to_one(name, ("a", "in"), ("b", name)));

    let mut job = good("same");
    job["spec"]["destinations"][0]["node"]["name"] = json!("a");
    job["spec"]["destinations"][0]["volume"]["path"] = json!("./in/");
    refused(&cluster, &job, "SameEndpoint", &["in"]).await?;
    let mut job = good("inside");
    job["spec"]["destinations"][0]["node"]["name"] = json!("a");
    job["spec"]["destinations"][0]["volume"]["path"] = json!("in/side");
    refused(&cluster, &job, "SameEndpoint", &["in/side"]).await?;
    let mut job = good("nowhere");
    job["spec"]["destinations"][0]["node"]["name"] = json!("nowhere");
    refused(&cluster, &job, "NodeNotFound", &["nowhere", "2 s"]).await?;
    let mut job = good("no-source");
    job["spec"]["source"]["node"]["name"] = json!("nowhere");
    refused(&cluster, &job, "NodeNotFound", &["nowhere"]).await?;
    let mut job = good("no-match");
    job["spec"]["destinations"][0]["node"] = json!({"selector": {"matchLabels": {"role": "nothing"}}});
    refused(&cluster, &job, "NoNodeMatches", &["role"]).await?;
    let mut job = good("no-agent");
    job["spec"]["destinations"][0]["node"]["name"] = json!("bare");
    refused(&cluster, &job, "AgentNotReady", &["bare"]).await?;
    let mut job = good("no-volume");
    job["spec"]["destinations"][0]["volume"]["name"] = json!("missing");
    refused(&cluster, &job, "VolumeNotFound", &["missing", "b"]).await?;
    let mut job = good("forbidden");
    job["spec"]["destinations"][0]["volume"]["name"] = json!("private");
    refused(&cluster, &job, "VolumeForbidden", &["private", "default", "allowedNamespaces"]).await?;
    let mut job = good("read-only");
    job["spec"]["destinations"][0]["volume"]["name"] = json!("archive");
    refused(&cluster, &job, "VolumeReadOnly", &["archive"]).await?;

    // What it waits for stands in the status while it waits.
    let mut job = one_to_one("waits", ("a", "in"), ("nowhere", "out"));
    job["spec"]["pendingDeadlineSeconds"] = json!(600);
    cluster.apply(&job)?;
    let waiting = cluster
        .wait_for("waits", SOON, "waiting with a reason", |job| {
            condition_of(job, condition::READY).is_some_and(|(_, reason, _)| reason == "NodeNotFound")
        })
        .await?;
    ensure!(condition_of(&waiting, condition::RECONCILING).is_some_and(|(truth, _, _)| truth == "True"));

    // The source's own node among the receivers is served already.
    cluster.plane.kubectl(&["label", "node", "a", "role=receiver", "--overwrite"])?;
    cluster.plane.kubectl(&["label", "node", "bare", "role=none", "--overwrite"])?;
    cluster.apply(&to_receivers("own", ("a", "in"), "in"))?;
    let job = cluster.wait_complete("own", SOON).await?;
    let nodes = job.status.and_then(|status| status.nodes).context("nodes")?;
    ensure!((nodes.desired, nodes.succeeded) == (2, 2), "{nodes:?}");
    assert_same(&cluster.path("a", "in"), &cluster.path("b", "in"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_names_what_it_will_not_read() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b"]).start().await?;
    let make = |path: &str| -> Result<std::path::PathBuf> {
        let path = cluster.path("a", path);
        std::fs::create_dir_all(path.parent().context("a directory")?)?;
        Ok(path)
    };
    let job = |name: &str, path: &str| hasty(one_to_one(name, ("a", path), ("b", name)));

    refused(&cluster, &job("missing", "not/there"), "SourceNotFound", &["not/there"]).await?;
    mkfifo(&make("pipe")?)?;
    refused(&cluster, &job("pipe", "pipe"), "NotRegularFile", &["pipe"]).await?;
    mkfifo(&make("tree/inner/pipe")?)?;
    refused(&cluster, &job("inner-pipe", "tree"), "NotRegularFile", &["inner/pipe", "exclude"]).await?;
    write_file(&make("leaves/file")?, 10, 1)?;
    symlink("../../outside", make("leaves/link")?)?;
    refused(&cluster, &job("leaves", "leaves"), "InvalidPath", &["link", "../../outside"]).await?;
    write_file(&make("absolute/file")?, 10, 1)?;
    symlink("/etc/passwd", make("absolute/link")?)?;
    refused(&cluster, &job("absolute", "absolute"), "InvalidPath", &["/etc/passwd"]).await?;
    symlink("/etc", make("etc")?)?;
    refused(&cluster, &job("through", "etc/passwd"), "InvalidPath", &["etc"]).await?;
    refused(&cluster, &job("reserved", ".nixl-transfer/x"), "InvalidPath", &[".nixl-transfer"]).await?;
    refused(&cluster, &job("component", &"x".repeat(256)), "InvalidPath", &["255"]).await?;
    let wide = "ü".repeat(100);
    let many = [wide.as_str(); 6].join("/");
    refused(&cluster, &job("bytes", &many), "InvalidPath", &["1,024"]).await?;
    if rustix::process::geteuid().is_root() {
        // Only root can make a file whose owner is not the directory's; elsewhere the unit test of the walk shows it.
        let foreign = make("foreign")?;
        write_file(&foreign, 10, 1)?;
        std::os::unix::fs::chown(&foreign, Some(12_345), None)?;
        std::fs::hard_link(&foreign, make("hard/link")?)?;
        refused(&cluster, &job("hard-link", "hard"), "NotRegularFile", &["link", "hard link"]).await?;
    }

    // After all of that the agent still works.
    write_file(&make("fine")?, 10, 1)?;
    cluster.apply(&job("fine", "fine"))?;
    cluster.wait_complete("fine", SOON).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_names_what_it_will_not_write() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b"]).start().await?;
    write_file(&cluster.path("a", "file"), 10, 1)?;
    write_file(&cluster.path("a", "tree/name"), 10, 1)?;
    std::fs::create_dir_all(cluster.path("b", "directory/name"))?;
    write_file(&cluster.path("b", "file-in-the-way"), 10, 2)?;
    symlink("/tmp", cluster.path("b", "link"))?;
    let job = |name: &str, from: &str, to: &str| hasty(one_to_one(name, ("a", from), ("b", to)));

    refused(&cluster, &job("dir", "file", "directory"), "DestinationExists", &["directory"]).await?;
    refused(&cluster, &job("inner-dir", "tree", "directory"), "DestinationExists", &["name"]).await?;
    refused(&cluster, &job("file", "tree", "file-in-the-way"), "DestinationExists", &["file-in-the-way"])
        .await?;
    refused(&cluster, &job("link", "file", "link/file"), "InvalidPath", &["link"]).await?;
    refused(&cluster, &job("reserved", "file", ".nixl-transfer/x"), "InvalidPath", &[".nixl-transfer"])
        .await?;
    let exists = with(job("exists", "file", "file-in-the-way"), "writePolicy", json!("FailIfExists"));
    refused(&cluster, &exists, "DestinationExists", &["file-in-the-way", "writePolicy"]).await?;
    let rdma = with(job("rdma", "file", "out"), "transport", json!({"require": "Rdma"}));
    refused(&cluster, &rdma, "BackendUnavailable", &["RDMA", "spec.transport.require"]).await?;
    let huge = with(job("huge", "file", "out"), "transport", json!({"chunkSize": "64Mi", "inFlight": 64}));
    refused(&cluster, &huge, "InsufficientStagingMemory", &["chunkSize", "inFlight", "256Mi"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_jobs_into_one_directory_wait_for_each_other() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b"]).start().await?;
    write_file(&cluster.path("a", "large/large"), 1024 * MIB, 1)?;
    write_file(&cluster.path("a", "small/small"), 10, 2)?;
    cluster.apply(&one_to_one("first", ("a", "large"), ("b", "out")))?;
    cluster.wait_partial("b", 10 * MIB, SOON).await?;
    cluster.apply(&one_to_one("patient", ("a", "small"), ("b", "out/inner")))?;
    cluster.wait_complete("patient", Duration::from_secs(60)).await?;
    let first = cluster.jobs().get("first").await?;
    ensure!(nixl_transfer_tests::jobs::is_complete(&first), "the second job did not wait for the first");

    write_file(&cluster.path("a", "large/large"), 3072 * MIB, 3)?;
    cluster.apply(&one_to_one("again", ("a", "large"), ("b", "out")))?;
    cluster.wait_partial("b", 10 * MIB, SOON).await?;
    let mut impatient = hasty(one_to_one("impatient", ("a", "small"), ("b", "out")));
    impatient["spec"]["pendingDeadlineSeconds"] = json!(2);
    refused(&cluster, &impatient, "DestinationBusy", &["out"]).await?;
    cluster.wait_complete("again", Duration::from_secs(60)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_destination_fails_with_its_reason_and_keeps_no_partial_file() -> Result<()> {
    let own = OwnMount::new("full")?;
    let mut volume = Volume::new("data");
    volume.path = Some(own.path());
    let cluster =
        Setup::nodes(&["a", "b"]).volumes("b", vec![volume]).agent_binary("b", own.agent()).start().await?;

    // At the start: the whole is larger than the free space. In the middle: two files that fit each by itself.
    write_file(&cluster.path("a", "large"), 200 * MIB, 1)?;
    let large = hasty(one_to_one("large", ("a", "large"), ("b", "large")));
    refused(&cluster, &large, "InsufficientSpace", &["volume", "data"]).await?;
    write_file(&cluster.path("a", "first"), 40 * MIB, 1)?;
    write_file(&cluster.path("a", "second"), 40 * MIB, 2)?;
    cluster.apply(&hasty(one_to_one("first", ("a", "first"), ("b", "first"))))?;
    cluster.wait_complete("first", SOON).await?;
    let second = hasty(one_to_one("second", ("a", "second"), ("b", "second")));
    refused(&cluster, &second, "InsufficientSpace", &["data"]).await?;
    // A file that fits shows that the partial files of the failed ones are gone.
    write_file(&cluster.path("a", "third"), 20 * MIB, 3)?;
    cluster.apply(&hasty(one_to_one("third", ("a", "third"), ("b", "third"))))?;
    cluster.wait_complete("third", SOON).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_metadata_is_refused_before_nixl_sees_it_and_the_agent_goes_on() -> Result<()> {
    // No operator: the tasks are made by hand, and the other side's half is written by the test.
    let cluster = Setup::nodes(&["a", "b"]).without_operator().start().await?;
    write_file(&cluster.path("a", "file"), 10, 1)?;
    let workers = cluster.workers("a").len();
    let long = "b64:".to_owned() + &"A".repeat(200_000);
    let descriptor = r#"{"device":"cpu","ptr":4096,"size":1048576}"#;
    let with_metadata = |metadata: &str, kind: i32| {
        format!(
            r#"{{"descriptors":[{descriptor}],"nixl_metadata":"{metadata}","notification_key":"k","operation_kind":{kind}}}"#
        )
    };
    let cases = [
        ("empty", String::new()),
        ("not-json", "{".into()),
        ("unknown-field", r#"{"descriptors":[],"extra":1}"#.into()),
        ("kind-zero", with_metadata("b64:eJw=", 0)),
        ("kind-three", with_metadata("b64:eJw=", 3)),
        ("kind-read", with_metadata("b64:eJw=", 1)),
        ("bad-base64", with_metadata("b64:***", 2)),
        ("bad-zlib", with_metadata("b64:AAAA", 2)),
        ("bad-hex", with_metadata("zz", 2)),
        ("long", with_metadata(&long, 2)),
    ];
    for (name, metadata) in cases {
        let task = hand_made_task(&cluster, name).await?;
        let half = json!({"status": {"target": {"state": "Prepared", "worker": "elsewhere", "rdmaMetadata": metadata}}});
        cluster.tasks().patch_status(&task, &PatchParams::default(), &Patch::Merge(half)).await?;
        let side = wait_source_failed(&cluster, &task).await?;
        let reason = side.reason.unwrap_or_default();
        ensure!(
            reason == "MetadataMalformed" || reason == "MetadataRejected",
            "{name}: {reason}: {:?}",
            side.message
        );
        ensure!(side.message.is_some_and(|message| !message.is_empty()), "{name}: no message");
    }
    ensure!(cluster.agent("a").is_running());
    cluster.agent("a").wait_ready()?;
    ensure!(cluster.workers("a").len() >= workers.min(1), "no worker is left");
    Ok(())
}

/// To an agent of an earlier version, which seals nothing.
async fn hand_made_task(cluster: &Cluster, name: &str) -> Result<String> {
    let elsewhere = json!({
        "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "TransferNode", "metadata": {"name": "elsewhere"}, "spec": {},
    });
    cluster.plane.apply_text(&elsewhere.to_string())?;
    let patch = r#"--patch={"status":{"instance":"2","agentVersion":"0"}}"#;
    cluster.plane.kubectl(&["patch", "tn", "elsewhere", "--type=merge", "--subresource=status", patch])?;
    let node = |name: &str| -> Result<Value> {
        Ok(serde_json::from_str(&cluster.plane.kubectl(&["get", "tn", name, "-o", "json"])?)?)
    };
    let instance = |node: &Value| node["status"]["instance"].clone();
    let task = json!({
        "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "TransferTask",
        "metadata": {"name": name, "namespace": "default", "labels": {"nixl-transfer.io/job": "by-hand"}},
        "spec": {
            "jobRef": {"name": "by-hand", "uid": "0"}, "run": 1, "attempt": 0, "failures": 0, "direction": "Write",
            "source": {"nodeName": "a", "instance": instance(&node("a")?), "volume": {"name": "data", "path": "file"}},
            "target": {"nodeName": "elsewhere", "nodeUID": "1", "instance": "2", "destination": "d", "volume": {"name": "data", "path": name}},
            "transport": {"chunkSize": "1Mi", "inFlight": 1, "backends": ["UCX"]}, "integrity": {}, "writePolicy": "SkipIdentical",
            "deadlines": {"pendingSeconds": 30, "progressSeconds": 30}, "cancel": false
        }
    });
    cluster.plane.apply_text(&task.to_string())?;
    Ok(name.into())
}

async fn wait_source_failed(
    cluster: &Cluster,
    task: &str,
) -> Result<nixl_transfer_crds::task::status::SourceSide> {
    let failed = |task: Option<&TransferTask>| {
        task.and_then(|task| task.status.as_ref()?.source.as_ref())
            .is_some_and(|side| side.state.is_terminal())
    };
    let waited = kube::runtime::wait::await_condition(cluster.tasks(), task, failed);
    let task = tokio::time::timeout(SOON, waited).await.with_context(|| format!("{task}: no end"))??;
    task.and_then(|task| task.status?.source).context("a source half")
}

fn mkfifo(path: &Path) -> Result<()> {
    Ok(rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o644.into(), 0)?)
}
