//! Memory that pods hand over: both clients, every end of a transfer, and pods that go.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nixl_transfer_client::{ClientError, Event, Workload, shared_memory};
use nixl_transfer_tests::{
    Setup,
    data::{assert_same_content, write_file},
    regions::{file, job, memory, region},
    workloads::{Program, Sockets},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
/// No multiple of anything.
const LENGTH: u64 = 5 * MIB + 4097;

fn of_workload(name: &str, node: &str) -> Value {
    region(name, node, json!({"workload": {}}))
}

/// Memory with the content of a file.
fn filled(file: &Path) -> Result<File> {
    let content = fs::read(file)?;
    let memory = shared_memory(content.len() as u64)?;
    memory.write_all_at(&content, 0)?;
    Ok(memory)
}

fn finished(agent: &mut Workload) -> Result<(String, bool, bool, Option<String>)> {
    match agent.next(SOON)? {
        Event::Finished { job, wrote, succeeded, digest, .. } => Ok((job, wrote, succeeded, digest)),
        other => bail!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_lend_their_memory_in_rust_and_in_python_and_hear_of_transfers() -> Result<()> {
    let sockets = Sockets::new()?;
    let (a, b) = (sockets.config("a"), sockets.config("b"));
    let cluster = Setup::nodes(&["a", "b"]).agent_config("a", a).agent_config("b", b).start().await?;
    write_file(&cluster.path("a", "file"), LENGTH, 1)?;

    // A pod of node a, in Rust: its memory is read, and later written.
    let mut agent = cluster.workload(&sockets, "lender", "a")?;
    let lent = filled(&cluster.path("a", "file"))?;
    let early = agent.hand_over("lent", &lent, LENGTH, Duration::ZERO + Duration::from_millis(300));
    let Err(ClientError::Refused { reason, message }) = early else { bail!("{early:?}") };
    ensure!(reason == "RegionNotFound" && message.contains("apply it first"), "{message}");
    cluster.apply(&of_workload("lent", "a"))?;
    let why = cluster.wait_region_unready("lent", "RegionNotReady", SOON).await?;
    ensure!(why.contains("no pod"), "{why}");
    agent.hand_over("lent", &lent, LENGTH, SOON)?;
    let status = cluster.wait_region_ready("lent", SOON).await?.status.context("a status")?;
    ensure!(status.pod.context("a pod")?.name == "lender" && status.size == Some(i64::try_from(LENGTH)?));

    // A pod of node b, in Python, whose memory is larger than what comes.
    cluster.apply(&of_workload("python", "b"))?;
    cluster.make_pod("snake", "b")?;
    let token = sockets.file("token", &cluster.token("snake")?)?;
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/python");
    let (socket, size) = (sockets.of("b"), (LENGTH + MIB).to_string());
    let words = [text(&socket)?, text(&token)?, "python", &size];
    let python = Program::python(&client.join("example.py"), std::slice::from_ref(&client), &words)?;
    let ready: Value = serde_json::from_str(&python.line(SOON)?)?;
    ensure!(ready == json!({"type": "ready", "pod": "snake"}), "{ready}");

    cluster.apply(&job("out", memory("lent"), &[memory("python"), file("b", "copy")]))?;
    let status = cluster.wait_complete("out", SOON).await?.status.context("a status")?;
    let digest = status.destinations[0].digest.clone();
    assert_same_content(&cluster.path("a", "file"), &cluster.path("b", "copy"))?;
    let heard: Value = serde_json::from_str(&python.line(SOON)?)?;
    let expected = json!({"type": "finished", "region": "python", "job": "out", "wrote": true, "succeeded": true,
                          "bytes": LENGTH, "digest": digest});
    ensure!(heard == expected, "{heard}");
    let start = python.line(SOON)?;
    ensure!(start.starts_with("b'") && start.len() > 32, "{start}");
    python.wait(SOON)?;
    // Two hops, or one and a chain: as many as read it.
    ensure!(finished(&mut agent)? == ("out".into(), false, true, digest));

    // Back into the memory of the pod on node a, which is another file's then.
    write_file(&cluster.path("b", "other"), LENGTH, 2)?;
    cluster.apply(&job("back", file("b", "other"), &[memory("lent")]))?;
    cluster.wait_complete("back", SOON).await?;
    loop {
        let (job, wrote, succeeded, _) = finished(&mut agent)?;
        if job == "back" {
            ensure!(wrote && succeeded);
            break;
        }
    }
    let mut content = vec![0; usize::try_from(LENGTH)?];
    lent.read_exact_at(&mut content, 0)?;
    ensure!(content == fs::read(cluster.path("b", "other"))?, "what the pod sees is what was sent");
    agent.withdraw("lent", SOON)?;
    cluster.wait_region_unready("lent", "RegionNotReady", SOON).await?;
    cluster.assert_nothing_left(&["a", "b"], SOON).await
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of this test")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_goes_while_its_memory_is_used_ends_the_attempt_and_the_next_pod_gets_the_rest()
-> Result<()> {
    let sockets = Sockets::new()?;
    let cluster = Setup::nodes(&["a", "b"]).agent_config("b", sockets.config("b")).start().await?;
    write_file(&cluster.path("a", "file"), LENGTH, 1)?;
    cluster.apply(&of_workload("lent", "b"))?;
    let mut first = cluster.workload(&sockets, "first", "b")?;
    first.hand_over("lent", &shared_memory(LENGTH)?, LENGTH, SOON)?;
    cluster.wait_region_ready("lent", SOON).await?;
    let mut into = job("into", file("a", "file"), &[memory("lent")]);
    into["spec"]["transport"] = json!({"bandwidthLimit": "256Ki"});
    cluster.apply(&into)?;
    cluster.wait_moving("into", 1, SOON).await?;
    drop(first);
    let why = cluster.wait_region_unready("lent", "RegionNotReady", SOON).await?;
    ensure!(why.contains("no pod"), "{why}");
    let waits = |job: &nixl_transfer_crds::TransferJob| {
        let destination = job.status.as_ref().and_then(|status| status.destinations.first());
        destination.is_some_and(|it| it.reason.as_deref() == Some("RegionNotReady"))
    };
    cluster.wait_for("into", SOON, "waiting for a pod", waits).await?;

    into["spec"]["transport"] = json!({});
    cluster.apply(&into)?;
    let mut second = cluster.workload(&sockets, "second", "b")?;
    let memory = shared_memory(LENGTH + 1)?;
    second.hand_over("lent", &memory, LENGTH + 1, SOON)?;
    cluster.wait_complete("into", SOON).await?;
    ensure!(finished(&mut second)?.2);
    let mut content = vec![0; usize::try_from(LENGTH + 1)?];
    memory.read_exact_at(&mut content, 0)?;
    let mut expected = fs::read(cluster.path("a", "file"))?;
    expected.push(0);
    ensure!(content == expected, "all of the file, and nothing behind it");
    cluster.assert_nothing_left(&["a", "b"], SOON).await
}
