//! What UCX says that it uses, held against what the kernel counts: each case in a network namespace of its own, where nothing
//! else goes over the loopback.

use std::fs;

use transfer_agent::protocol::{FromWorker, Network, Used};

use super::conductor::{Conductor, SourceEnd, options};
use super::process::Worker;
use super::target_end::TargetEnd;
use super::{Outcome, assert_same, content, file, folders};

const SIZE: usize = 24 << 20;
const CHUNK: u64 = 1 << 20;

fn network(transports: &[&str], devices: &[&str]) -> Network {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Network { transports: owned(transports), devices: owned(devices), cpus: Vec::new() }
}

/// Bytes that the interfaces have sent, the loopback first.
fn sent(names: &[&str]) -> Outcome<Vec<u64>> {
    let table = fs::read_to_string("/proc/net/dev")?;
    let of = |name: &&str| {
        let line = table.lines().find_map(|line| line.trim().strip_prefix(&format!("{name}:")))?;
        line.split_whitespace().nth(8)?.parse().ok()
    };
    Ok(names.iter().map(|name| of(name).unwrap_or(0)).collect())
}

/// Moves a file, and gives what the target's worker said.
fn moved(network: &Network) -> Outcome<Used> {
    let (from, to) = folders()?;
    file(from.path(), "large", &content(SIZE, 3))?;
    let source = Worker::start_on("source", None, network.clone())?;
    let target = Worker::start_on("target", None, network.clone())?;
    let stream = options(CHUNK, 4);
    let source = SourceEnd::of(source, from.path(), stream)?;
    let mut conductor = Conductor::meet(source, TargetEnd::of(target, to.path(), stream, true, None)?)?;
    conductor.run()?;
    assert_same(from.path(), to.path())?;
    Ok(conductor.target.used.clone().ok_or("the worker said nothing of its network")?)
}

/// Starts one of the roles below in a network namespace of its own, with the loopback up.
fn alone(role: &str, setup: &str) -> Outcome {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: a network namespace needs root");
        return Ok(());
    }
    let script = format!("set -e; ip link set lo up; {setup}; exec \"$@\"");
    let output = std::process::Command::new("unshare")
        .args(["--net", "sh", "-c", &script, "sh"])
        .arg(std::env::current_exe()?)
        .args(["--exact", role, "--ignored", "--nocapture"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    Ok(())
}

#[test]
fn what_ucx_says_of_tcp_is_what_the_kernel_counts() -> Outcome {
    alone("network::over_tcp", ":")
}

#[test]
#[ignore = "a role for the process that another test starts"]
fn over_tcp() -> Outcome {
    let before = sent(&["lo"])?[0];
    let used = moved(&network(&["tcp"], &["lo"]))?;
    assert_eq!((used.transports, used.devices), (vec!["tcp".to_owned()], vec!["lo".to_owned()]));
    let bytes = sent(&["lo"])?[0] - before;
    assert!(bytes > SIZE as u64, "{bytes} bytes over the loopback");
    Ok(())
}

#[test]
fn what_ucx_says_of_shared_memory_is_what_the_kernel_counts() -> Outcome {
    alone("network::through_memory", ":")
}

#[test]
#[ignore = "a role for the process that another test starts"]
fn through_memory() -> Outcome {
    let before = sent(&["lo"])?[0];
    let used = moved(&network(&["tcp", "sm"], &["lo"]))?;
    assert_eq!((used.transports, used.devices), (vec!["cma".to_owned()], Vec::new()));
    let bytes = sent(&["lo"])?[0] - before;
    assert!(bytes < SIZE as u64 / 16, "{bytes} bytes over the loopback");
    Ok(())
}

/// As on a node where sysfs shows a port that UCX cannot use.
#[test]
fn rdma_that_is_not_there_leaves_tcp_and_is_not_said() -> Outcome {
    let used = moved(&network(&["rc", "tcp"], &["mlx5_0:1", "lo"]))?;
    assert_eq!((used.transports, used.devices), (vec!["tcp".to_owned()], vec!["lo".to_owned()]));
    // Without TCP there is nothing.
    let worker = Worker::start_on("alone", None, network(&["rc"], &["mlx5_0:1"]))?;
    match worker.next()? {
        FromWorker::NotReady { message } => assert!(message.contains("mlx5_0:1"), "{message}"),
        other => return Err(format!("it goes on: {other:?}").into()),
    }
    Ok(())
}

#[test]
fn every_thread_of_a_worker_runs_where_it_is_put() -> Outcome {
    let cpus = vec![0];
    let worker = Worker::start_on("placed", None, Network { cpus, ..network(&["tcp"], &["lo"]) })?;
    worker.say(&transfer_agent::protocol::ToWorker::OpenSource {
        hop: super::HOP,
        stream: options(64 << 10, 2),
    })?;
    super::prepared(&worker)?;
    let processors = worker.processors()?;
    assert!(processors.len() > 2 && processors.iter().all(|list| list == "0"), "{processors:?}");
    // A processor that is not there changes nothing: the worker serves on.
    let cpus = vec![1023];
    let worker = Worker::start_on("nowhere", None, Network { cpus, ..network(&["tcp"], &["lo"]) })?;
    worker.say(&transfer_agent::protocol::ToWorker::OpenSource {
        hop: super::HOP,
        stream: options(64 << 10, 2),
    })?;
    super::prepared(&worker)?;
    Ok(())
}
