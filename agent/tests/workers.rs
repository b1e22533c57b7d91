//! The pool with a real launcher and real workers that load the real NIXL. Where NIXL is: `.tools`, which
//! `cargo xtask tools` makes, or the environment.

use std::{
    env,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use tokio::{
    sync::{Mutex, mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use transfer_agent::{
    control::{
        connection::launcher::{Connection, Launcher},
        workers::{
            NixlFacts, Worker, WorkerEvent, Workers,
            pool::{PoolOptions, pool},
        },
    },
    metrics::Metrics,
    protocol::{Network, ToWorker},
};

const SOON: Duration = Duration::from_secs(60);

/// One pool at a time: tests look for the processes of theirs.
static ALONE: Mutex<()> = Mutex::const_new(());

fn nixl(variable: &str, path: &str) -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/nixl");
    let found = env::var_os(variable).map_or_else(|| tools.join(path), PathBuf::from);
    std::path::absolute(found).unwrap()
}

fn library() -> PathBuf {
    nixl("NIXL_TRANSFER_NIXL_LIBRARY", "lib/libnixl_capi.so")
}

struct Running {
    workers: Workers,
    metrics: Metrics,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    connection: Connection,
}

impl Running {
    fn start(warm: usize, library: PathBuf) -> Self {
        let metrics = Metrics::new().unwrap();
        let options = PoolOptions {
            cuda: nixl_transfer_gpu::LIBRARY.into(),
            prefix: "test".into(),
            warm,
            library,
            plugins: nixl("NIXL_TRANSFER_NIXL_PLUGINS", "plugins"),
            corrupt_chunk: None,
        };
        let (workers, task) = pool(options, metrics.clone());
        let (tell, events) = mpsc::channel(64);
        let program = PathBuf::from(env!("CARGO_BIN_EXE_transfer-agent"));
        let connection = Connection::start(Launcher::Child { program }, tell).unwrap();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(task.run(events, stopped, || {}));
        Self { workers, metrics, stop, task, connection }
    }

    async fn facts(&self) -> NixlFacts {
        let mut facts = self.workers.facts();
        let known = timeout(SOON, facts.wait_for(Option::is_some)).await.unwrap().unwrap();
        known.clone().unwrap()
    }

    async fn take(&self) -> Worker {
        let network =
            Network { transports: vec!["tcp".into()], devices: vec!["lo".into()], cpus: Vec::new() };
        timeout(SOON, self.workers.take(&network)).await.unwrap().unwrap()
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
        tokio::task::spawn_blocking(move || self.connection.stop()).await.unwrap();
    }
}

/// The last word about a worker. Nothing may follow it.
async fn end_of(worker: &mut Worker) -> String {
    loop {
        match timeout(SOON, worker.events.recv()).await.unwrap() {
            Some(WorkerEvent::Message(_) | WorkerEvent::Allocated { .. }) => {}
            Some(WorkerEvent::Gone { status }) => {
                assert!(worker.events.recv().await.is_none(), "nothing comes after the end");
                return status;
            }
            None => panic!("the events ended without the end of the worker"),
        }
    }
}

/// The workers of a launcher, running or not yet reaped.
fn worker_pids(launcher: u32) -> Vec<Pid> {
    let children =
        std::fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// Children of this process: launchers.
fn launchers() -> Vec<u32> {
    let mut found = Vec::new();
    for thread in std::fs::read_dir("/proc/self/task").unwrap() {
        let children = std::fs::read_to_string(thread.unwrap().path().join("children")).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_workers_are_handed_out_ended_on_request_and_replaced() {
    let _alone = ALONE.lock().await;
    let pool = Running::start(1, library());
    let NixlFacts::Usable { version, backends, .. } = pool.facts().await else {
        panic!("NIXL is not usable")
    };
    assert!(version.starts_with("1."), "{version}");
    assert!(backends.iter().any(|backend| backend.name == "UCX"), "{backends:?}");

    let mut first = pool.take().await;
    let mut second = pool.take().await;
    assert_ne!(first.name, second.name);
    first.sender().send(ToWorker::Ping { sequence: 1 }, Vec::new()).await.unwrap();
    first.sender().kill();
    assert_eq!(end_of(&mut first).await, "killed by SIGKILL");
    let late = first.sender();
    // The queue closes with the writer's next failing write at the latest.
    let refused = async {
        while late.send(ToWorker::Ping { sequence: 2 }, Vec::new()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, refused).await.unwrap();
    second.sender().kill();
    end_of(&mut second).await;
    let shown = pool.metrics.render().unwrap();
    let lost = shown.lines().filter(|line| line.starts_with("nixl_transfer_workers_lost_total{"));
    assert!(
        lost.clone().count() == 2 && lost.clone().all(|line| line.ends_with(" 0")),
        "they were asked to end"
    );
    pool.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hung_crashed_and_orphaned_workers_are_told_as_gone() {
    let _alone = ALONE.lock().await;
    let before = launchers();
    let pool = Running::start(1, library());
    pool.facts().await;
    let mut crashed = pool.take().await;
    let launcher = launchers().into_iter().find(|pid| !before.contains(pid)).unwrap();
    // Which of them is the taken one, only the pool knows; the warm ones fare alike.
    let all = |signal| worker_pids(launcher).into_iter().for_each(|pid| kill_process(pid, signal).unwrap());
    all(Signal::ABORT);
    assert_eq!(end_of(&mut crashed).await, "killed by SIGABRT");
    assert!(pool.metrics.render().unwrap().contains(r#"workers_lost_total{cause="exited"} "#));
    assert!(!pool.metrics.render().unwrap().contains(r#"workers_lost_total{cause="exited"} 0"#));

    let mut hung = pool.take().await;
    all(Signal::STOP);
    let status = end_of(&mut hung).await;
    assert!(status.starts_with("it did not answer for") && status.contains("SIGKILL"), "{status}");

    let mut orphaned = pool.take().await;
    let workers = watched(launcher);
    assert!(!workers.is_empty());
    kill_process(Pid::from_raw(launcher.cast_signed()).unwrap(), Signal::KILL).unwrap();
    let status = end_of(&mut orphaned).await;
    assert!(status.contains("the launcher ended"), "{status}");
    assert!(workers.iter().all(is_gone_soon), "no worker outlives its launcher");

    // Another launcher is started, and workers come again.
    let again = pool.take().await;
    assert_ne!(again.name, orphaned.name);
    let next = launchers().into_iter().find(|pid| !before.contains(pid) && *pid != launcher).unwrap();
    let workers = watched(next);
    drop(again);
    pool.end().await;
    assert!(workers.iter().all(is_gone_soon), "the end of the connection ends all");
}

/// Descriptors of a launcher's workers, which stay true whatever becomes of their numbers.
fn watched(launcher: u32) -> Vec<OwnedFd> {
    worker_pids(launcher).into_iter().filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).collect()
}

/// The end of a process, seen by the kernel. The end of its socket comes a moment earlier.
fn is_gone_soon(process: &OwnedFd) -> bool {
    let within = Timespec { tv_sec: 10, tv_nsec: 0 };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&within)).unwrap() == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_library_is_said_and_nobody_waits_for_it() {
    let _alone = ALONE.lock().await;
    let pool = Running::start(1, PathBuf::from("/nowhere/libnixl_capi.so"));
    let NixlFacts::Unusable(message) = pool.facts().await else { panic!("there is no NIXL there") };
    assert!(message.contains("/nowhere/libnixl_capi.so"), "{message}");
    let network = Network { transports: vec!["tcp".into()], devices: Vec::new(), cpus: Vec::new() };
    let failure = timeout(SOON, pool.workers.take(&network)).await.unwrap().unwrap_err();
    assert!(failure.message.contains("/nowhere/libnixl_capi.so"), "{failure}");
    pool.end().await;
}
