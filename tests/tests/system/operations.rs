//! What the people who run it rely on: health, metrics, logs, a graceful stop, and a damaged chunk that is found.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use devcluster::{Volume, http_get};
use nixl_transfer_tests::{
    OwnMount, Setup,
    data::{assert_same, write_file},
    jobs::{one_to_one, to_receivers, writes_between},
};
use rustix::process::Signal;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

fn status(port: u16, path: &str) -> Result<u16> {
    Ok(http_get(port, path, Duration::from_secs(10))?.0)
}

/// Sum of a metric over all its labels that contain `label`.
pub(crate) fn metric(text: &str, name: &str, label: &str) -> f64 {
    let ours = text.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
    });
    ours.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_chunk_is_found_and_sent_again() -> Result<()> {
    let setup = Setup::nodes(&["a", "b"]).agent_config("a", json!({"faults": {"corruptChunk": 3}}));
    let cluster = setup.start().await?;
    write_file(&cluster.path("a", "file"), 20 * MIB, 1)?;
    cluster.apply(&one_to_one("damaged", ("a", "file"), ("b", "file")))?;
    cluster.wait_complete("damaged", SOON).await?;
    assert_same(&cluster.path("a", "file"), &cluster.path("b", "file"))?;
    let task = cluster.tasks_of("damaged").await?.pop().context("a task")?;
    let target = task.status.and_then(|status| status.target).context("a target half")?;
    ensure!(target.chunks_resent.is_some_and(|resent| resent > 0), "no chunk was sent again: {target:?}");
    ensure!(task.spec.attempt == 0, "the damage cost an attempt");
    let metrics = cluster.agent("b").metrics()?;
    ensure!(metric(&metrics, "nixl_transfer_verify_failures_total", "") > 0.0, "{metrics}");
    Ok(())
}

/// A line that NIXL wrote to a worker's standard error, which is the agent's: level, month, day, and a file of its own.
/// It does so, for one, when a peer that has all it needs is gone before the last notification.
fn is_nixls(line: &str) -> bool {
    let mut bytes = line.bytes();
    bytes.next().is_some_and(|level| b"IWEF".contains(&level))
        && bytes.by_ref().take(4).all(|digit| digit.is_ascii_digit())
        && line.contains("nixl")
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_was_moved_and_logs_name_it_without_capabilities() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b", "c"]).start().await?;
    write_file(&cluster.path("a", "in/one"), 5 * MIB, 1)?;
    write_file(&cluster.path("a", "in/two"), 10, 2)?;
    cluster.apply(&to_receivers("counted", ("a", "in"), "out"))?;
    cluster.wait_complete("counted", SOON).await?;

    let bytes = (5 * MIB + 10) as f64;
    let received = cluster.agent("b").metrics()?;
    ensure!(metric(&received, "nixl_transfer_bytes_total", "received") == bytes, "{received}");
    ensure!(metric(&received, "nixl_transfer_files_total", "committed") == 2.0, "{received}");
    // Each byte leaves the source once, and the first receiver sends it on.
    let sent = cluster.agent("a").metrics()?;
    ensure!(metric(&sent, "nixl_transfer_bytes_total", "sent") == bytes, "{sent}");
    let sent_on =
        |node: &str| Ok(metric(&cluster.agent(node).metrics()?, "nixl_transfer_bytes_total", "sent"));
    let sent_on: [Result<f64>; 2] = ["b", "c"].map(sent_on);
    let [by_b, by_c] = sent_on;
    ensure!(by_b? + by_c? == bytes, "the first receiver did not send everything on");
    let operator = cluster.operator.as_ref().context("operator")?;
    // Gauges follow once a second.
    let since = Instant::now();
    let decided = loop {
        let decided = operator.metrics()?;
        if metric(&decided, "nixl_transfer_jobs", "Complete") == 1.0 {
            break decided;
        }
        ensure!(since.elapsed() < Duration::from_secs(5), "{decided}");
        tokio::time::sleep(Duration::from_millis(100)).await; // polls with a deadline
    };
    ensure!(metric(&decided, "nixl_transfer_jobs_total", "complete") == 1.0, "{decided}");
    for text in [&received, &sent, &decided] {
        ensure!(metric(text, "nixl_transfer_build_info", "") == 1.0, "{text}");
        ensure!(!text.contains("counted\""), "a job's name stands in a metric of a job that has ended");
    }

    let mut hops = 0;
    for log in [cluster.agent("a").log(), cluster.agent("b").log(), operator.log()] {
        let text = std::fs::read_to_string(log)?;
        for line in text.lines() {
            ensure!(
                !line.contains("b64:") && !line.contains("notification_key"),
                "a capability stands in a log"
            );
            if is_nixls(line) {
                continue;
            }
            let entry: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            ensure!(entry["level"].is_string() && entry["timestamp"].is_string(), "{line}");
            hops += usize::from(
                ["job", "run", "task", "node"].iter().all(|field| line.contains(&format!("\"{field}\"")))
                    && line.contains("counted"),
            );
        }
    }
    ensure!(hops > 3, "only {hops} lines name job, run, task and node");
    let events = cluster.plane.kubectl(&["get", "events.events.k8s.io", "-A", "-o", "json"])?;
    let events: Value = serde_json::from_str(&events)?;
    let reasons: Vec<&str> = events["items"]
        .as_array()
        .context("items")?
        .iter()
        .filter_map(|event| event["reason"].as_str())
        .collect();
    ensure!(reasons.contains(&"Succeeded"), "{reasons:?}");
    ensure!(!events.to_string().contains("b64:"), "a capability stands in an event");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_is_lost_without_an_api_server_and_comes_back_and_health_stays() -> Result<()> {
    let mut cluster = Setup::nodes(&["a"]).start().await?;
    let ports = [cluster.agent("a").port(), cluster.operator.as_ref().context("operator")?.port()];
    for port in ports {
        ensure!((status(port, "/readyz")?, status(port, "/healthz")?) == (200, 200));
    }
    cluster.plane.pause();
    let lost = wait_status(&ports, 503, Duration::from_secs(120)).await?;
    ensure!(
        lost > Duration::from_secs(30),
        "readiness was lost after {lost:?}, before a minute without a watch"
    );
    for port in ports {
        ensure!(
            status(port, "/healthz")? == 200,
            "health was lost with the API server: a restart would not help"
        );
    }
    cluster.plane.resume()?;
    wait_status(&ports, 200, Duration::from_secs(60)).await?;
    Ok(())
}

async fn wait_status(ports: &[u16], expected: u16, within: Duration) -> Result<Duration> {
    let since = Instant::now();
    loop {
        let now: Vec<u16> = ports.iter().map(|port| status(*port, "/readyz")).collect::<Result<_>>()?;
        if now.iter().all(|status| *status == expected) {
            return Ok(since.elapsed());
        }
        ensure!(since.elapsed() < within, "/readyz gives {now:?} after {within:?}, not {expected}");
        tokio::time::sleep(Duration::from_millis(250)).await; // polls with a deadline
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_ends_transfers_and_the_next_start_goes_on() -> Result<()> {
    let mut cluster = Setup::nodes(&["a", "b"]).start().await?;
    write_file(&cluster.path("a", "large"), 1024 * MIB, 1)?;
    cluster.apply(&one_to_one("stopped", ("a", "large"), ("b", "large")))?;
    cluster.wait_partial("b", 64 * MIB, SOON).await?;
    let (pid, workers) = (cluster.agent("b").pid().context("a pid")?, cluster.workers("b"));
    let since = Instant::now();
    cluster.agent("b").signal(Signal::TERM)?;
    while cluster.agent("b").is_running() {
        ensure!(since.elapsed() < Duration::from_secs(15), "agent {pid} runs 15 s after SIGTERM");
        tokio::time::sleep(Duration::from_millis(20)).await; // polls a process, which gives no event
    }
    for worker in workers {
        let alive = std::fs::read_to_string(format!("/proc/{}/cmdline", worker.pid)).unwrap_or_default();
        ensure!(!alive.contains("worker"), "worker {} outlived its agent", worker.pid);
    }
    let task = cluster.tasks_of("stopped").await?.pop().context("a task")?;
    let target = task.status.and_then(|status| status.target).context("a half")?;
    ensure!(target.reason.as_deref() == Some("AgentRestarted"), "{target:?}");
    cluster.agent_mut("b").restart()?;
    cluster.wait_complete("stopped", SOON).await?;
    let task = cluster.tasks_of("stopped").await?.pop().context("a task")?;
    let target = task.status.and_then(|status| status.target).context("a half")?;
    ensure!(target.bytes_resumed > Some(0), "nothing was kept for the next start: {target:?}");
    assert_same(&cluster.path("a", "large"), &cluster.path("b", "large"))?;
    cluster.assert_nothing_left(&["a", "b"], SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_says_what_its_node_has() -> Result<()> {
    // Free space that other tests change would be news to write.
    let own = OwnMount::new("idle")?;
    let (mut data, mut archive) = (Volume::new("data"), Volume::new("archive"));
    (data.path, archive.path) = (Some(own.path()), Some(own.path()));
    archive.read_only = true;
    archive.allowed_namespaces = vec!["team".into()];
    let cluster =
        Setup::nodes(&["a"]).volumes("a", vec![data, archive]).agent_binary("a", own.agent()).start().await?;
    let text = cluster.plane.kubectl(&["get", "transfernode", "a", "-o", "json"])?;
    let status = serde_json::from_str::<Value>(&text)?["status"].clone();
    ensure!(status["nixlVersion"].as_str().is_some_and(|version| version.starts_with("1.5")), "{status}");
    ensure!(status["backends"][0]["name"] == "UCX", "{status}");
    ensure!(status["backends"][0]["memoryTypes"].to_string().contains("DRAM"), "{status}");
    ensure!(status["slots"]["total"] == 4 && status["staging"]["total"] == 256 << 20, "{status}");
    let volume = |name: &str| -> Result<Value> {
        let volumes = status["volumes"].as_array().context("volumes")?;
        volumes.iter().find(|volume| volume["name"] == name).cloned().context("a volume")
    };
    ensure!(
        volume("archive")?["readOnly"] == true && volume("archive")?["allowedNamespaces"] == json!(["team"])
    );
    let (free, capacity) = (volume("data")?["free"].as_i64(), volume("data")?["capacity"].as_i64());
    ensure!(free > Some(0) && free <= capacity, "{status}");
    let columns = cluster.plane.kubectl(&["get", "tn"])?;
    ensure!(columns.contains("NIXL") && columns.contains("archive"), "{columns}");
    let idle = cluster.api_writes()?;
    // Two renewals of the Lease, and nothing else, is what an idle agent writes.
    tokio::time::sleep(Duration::from_secs(21)).await;
    let writes = writes_between(&idle, &cluster.api_writes()?);
    ensure!(writes.is_empty(), "an idle agent wrote {writes:?}");
    Ok(())
}
