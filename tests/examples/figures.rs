//! What a run of small jobs costs the API server and how much memory our processes take, printed. Run it with
//! `cargo xtask figures`. How fast we are beside others is `cargo xtask bench`'s to say.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use devcluster::Volume;
use kube::api::DeleteParams;
use nixl_transfer_tests::{
    Cluster, Setup,
    data::write_file,
    jobs::{one_to_one, writes_between},
};

const MIB: u64 = 1 << 20;
const JOBS: usize = 100;
const SOON: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<()> {
    let memory = Memory::new()?;
    let volume = |node: &str| {
        let mut volume = Volume::new("data");
        volume.path = Some(memory.0.join(node));
        vec![volume]
    };
    let cluster =
        Setup::nodes(&["a", "b"]).volumes("a", volume("a")).volumes("b", volume("b")).start().await?;
    println!("volumes on /dev/shm; etcd without fsync; {} cores; load {}", cores()?, load()?);
    small_jobs(&cluster).await?;
    memory_of_processes(&cluster)?;
    Ok(())
}

/// Apply to Complete, one job after the other, workers warm.
async fn small_jobs(cluster: &Cluster) -> Result<()> {
    write_file(&cluster.path("a", "small"), MIB, 1)?;
    let mut took = Vec::new();
    let before = cluster.api_writes()?;
    for at in 0..JOBS {
        let name = format!("small-{at}");
        let job = serde_json::from_value(one_to_one(&name, ("a", "small"), ("b", &name)))?;
        let since = Instant::now();
        cluster.jobs().create(&Default::default(), &job).await?;
        cluster.wait_complete(&name, SOON).await?;
        took.push(since.elapsed().as_secs_f64() * 1e3);
    }
    let writes: u64 = writes_between(&before, &cluster.api_writes()?).values().sum();
    took.sort_by(f64::total_cmp);
    println!(
        "apply to Complete of a 1 MiB job, {JOBS} jobs: p50 {:.0} ms, p99 {:.0} ms; API writes per job {:.2}",
        took[JOBS / 2],
        took[JOBS * 99 / 100],
        writes as f64 / JOBS as f64
    );
    cluster.jobs().delete_collection(&DeleteParams::default(), &Default::default()).await?;
    Ok(())
}

fn memory_of_processes(cluster: &Cluster) -> Result<()> {
    let rss = |pid: Option<i32>| {
        pid.and_then(Cluster::rss).map_or("?".into(), |bytes| format!("{:.0} MiB", bytes as f64 / MIB as f64))
    };
    let operator = cluster.operator.as_ref().context("an operator")?.pid();
    println!("RSS: operator {}, agent control {}", rss(operator), rss(cluster.agent("b").pid()));
    for process in cluster.agent("b").descendants() {
        let role = process.arguments.get(1).cloned().unwrap_or_default();
        println!("  {role} {}: {}", process.pid, rss(Some(process.pid)));
    }
    Ok(())
}

/// A directory on tmpfs, removed at the end.
struct Memory(PathBuf);

impl Memory {
    fn new() -> Result<Self> {
        let path = PathBuf::from(format!("/dev/shm/nixl-transfer-figures-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // At worst it stays until the next restart of the machine.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn cores() -> Result<usize> {
    Ok(std::thread::available_parallelism()?.get())
}

fn load() -> Result<String> {
    Ok(fs::read_to_string("/proc/loadavg")?.split(' ').next().unwrap_or("?").to_owned())
}
