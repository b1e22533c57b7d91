//! Measures what a user would ask first, in one run on one machine, and prints it. Run it with `cargo xtask figures`.
//! Absolute numbers mean little on a shared machine; the ratios to the peers measured beside them mean more.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use devcluster::{Volume, binary, free_port};
use kube::api::DeleteParams;
use nixl_transfer_tests::{
    Cluster, Setup,
    data::{assert_same, write_file},
    jobs::{one_to_one, writes_between},
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const JOBS: usize = 100;
const ROUNDS: usize = 5;
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
    large_file(&cluster).await?;
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

/// A 1 GiB file from node to node, interleaved with its peers; every copy is compared.
async fn large_file(cluster: &Cluster) -> Result<()> {
    write_file(&cluster.path("a", "large"), GIB, 2)?;
    let (source, target) = (cluster.path("a", "large"), cluster.path("b", "large"));
    let rsync = Rsync::start(cluster.path("b", "").as_path())?;
    let mut rows: Vec<(&str, Vec<f64>)> = [
        "nixl-transfer, file to file, verified",
        "rsync -W, daemon on loopback",
        "cp",
        "our stream, memory to memory, verified",
        "minimal NIXL loop, default settings",
        "minimal NIXL loop, polling",
    ]
    .map(|name| (name, Vec::new()))
    .into();
    for round in 0..ROUNDS {
        let name = format!("large-{round}");
        // Pages of the destination are there before: first touches of memory cost more than anything measured here.
        let ours = {
            let job = serde_json::from_value(one_to_one(&name, ("a", "large"), ("b", "large")))?;
            let _ = fs::remove_file(&target);
            let since = Instant::now();
            cluster.jobs().create(&Default::default(), &job).await?;
            cluster.wait_complete(&name, SOON).await?;
            since.elapsed()
        };
        assert_same(&source, &target)?;
        rows[0].1.push(rate(GIB, ours));
        let _ = fs::remove_file(&target);
        match &rsync {
            Some(rsync) => {
                rows[1].1.push(rate(GIB, rsync.copy(&source)?));
                ensure!(fs::metadata(&target)?.len() == GIB, "rsync did not copy");
                fs::remove_file(&target)?;
            }
            None if round == 0 => println!("rsync is not installed; its row stays empty"),
            None => {}
        }
        rows[2].1.push(rate(GIB, timed(Command::new("cp").arg(&source).arg(&target))?));
        rows[3].1.push(example("stream", &["1024"])?);
        rows[4].1.push(example("raw", &["1024", "default"])?);
        rows[5].1.push(example("raw", &["1024", "polling"])?);
    }
    println!(
        "1 GiB, {ROUNDS} rounds interleaved, GB/s: median (min–max); a job's time is from apply to Complete"
    );
    for (name, rates) in &mut rows {
        if !rates.is_empty() {
            rates.sort_by(f64::total_cmp);
            println!(
                "  {name:<42} {:.2} ({:.2}–{:.2})",
                rates[rates.len() / 2],
                rates[0],
                rates[rates.len() - 1]
            );
        }
    }
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

/// An rsync daemon on loopback that serves one directory for writing.
struct Rsync {
    daemon: Child,
    port: u16,
    config: PathBuf,
}

impl Rsync {
    fn start(directory: &Path) -> Result<Option<Self>> {
        if Command::new("rsync").arg("--version").stdout(Stdio::null()).status().is_err() {
            return Ok(None);
        }
        let port = free_port()?;
        let config = std::env::temp_dir().join(format!("nixl-transfer-rsync-{}.conf", std::process::id()));
        fs::write(
            &config,
            format!(
                "use chroot = no\naddress = 127.0.0.1\n[data]\npath = {}\nread only = no\nuid = {}\ngid = {}\n",
                directory.display(),
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw()
            ),
        )?;
        let daemon = Command::new("rsync")
            .args(["--daemon", "--no-detach", &format!("--port={port}")])
            .arg(format!("--config={}", config.display()))
            .spawn()?;
        let rsync = Self { daemon, port, config };
        let deadline = Instant::now() + Duration::from_secs(5);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(Instant::now() < deadline, "the rsync daemon does not listen");
            std::thread::yield_now();
        }
        Ok(Some(rsync))
    }

    fn copy(&self, source: &Path) -> Result<Duration> {
        let to = format!("rsync://127.0.0.1:{}/data/", self.port);
        timed(Command::new("rsync").args(["-W", "--inplace"]).arg(source).arg(to))
    }
}

impl Drop for Rsync {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = fs::remove_file(&self.config);
    }
}

fn timed(command: &mut Command) -> Result<Duration> {
    let since = Instant::now();
    let status = command.stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(since.elapsed())
}

fn rate(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64() / 1e9
}

/// Runs an example of nixl-connect and reads the rate that it prints.
fn example(name: &str, arguments: &[&str]) -> Result<f64> {
    let directory = binary("transfer-agent")?;
    let program = directory.parent().context("a directory")?.join("examples").join(name);
    let output =
        Command::new(&program).args(arguments).output().with_context(|| program.display().to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = text
        .split_whitespace()
        .collect::<Vec<_>>()
        .windows(2)
        .find(|pair| pair[1] == "GB/s")
        .map(|pair| pair[0].parse::<f64>());
    match rate {
        Some(Ok(rate)) if output.status.success() => Ok(rate),
        _ => bail!("{name} printed no rate: {text}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

fn cores() -> Result<usize> {
    Ok(std::thread::available_parallelism()?.get())
}

fn load() -> Result<String> {
    Ok(fs::read_to_string("/proc/loadavg")?.split(' ').next().unwrap_or("?").to_owned())
}
