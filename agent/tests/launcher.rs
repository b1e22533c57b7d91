//! The launcher with real processes: what a worker is given, how its end is told, and that nothing outlives control.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Child,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use transfer_agent::{
    launcher::child,
    protocol::{
        FromLauncher, FromWorker, PROTOCOL_VERSION, ToLauncher, ToWorker, WorkerName,
        channel::{Channel, ChannelError},
    },
};

const SOON: Duration = Duration::from_secs(20);

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_transfer-agent"))
}

/// A launcher that ends with the test, whatever happens.
struct Launcher {
    process: Child,
    control: Channel,
}

impl Launcher {
    fn start() -> Self {
        let (control, theirs) = Channel::pair().unwrap();
        let process = child::spawn(&program(), "launcher", &theirs.into_fd()).unwrap();
        Self::greeted(process, control)
    }

    fn greeted(process: Child, control: Channel) -> Self {
        control.set_timeouts(Some(SOON), Some(SOON)).unwrap();
        control.send(&ToLauncher::Hello { version: PROTOCOL_VERSION }, &[]).unwrap();
        let launcher = Self { process, control };
        assert!(matches!(launcher.said(), FromLauncher::Hello { version: PROTOCOL_VERSION, .. }));
        launcher
    }

    fn said(&self) -> FromLauncher {
        self.control.receive().unwrap().0
    }

    /// Starts a worker that has answered a heartbeat.
    fn worker(&self, name: &str) -> Worker {
        let (socket, theirs) = Channel::pair().unwrap();
        let name = WorkerName(name.into());
        let theirs = theirs.into_fd();
        let spawn = ToLauncher::Spawn { worker: name.clone() };
        self.control.send(&spawn, &[std::os::fd::AsFd::as_fd(&theirs)]).unwrap();
        let FromLauncher::Spawned { worker, pid } = self.said() else { panic!("it was not started") };
        assert_eq!(worker, name);
        socket.set_timeouts(Some(SOON), Some(SOON)).unwrap();
        socket.send(&ToWorker::Ping { sequence: 7 }, &[]).unwrap();
        let (answer, _) = socket.receive::<FromWorker>().unwrap();
        assert!(matches!(answer, FromWorker::Pong { sequence: 7 }));
        Worker { name, pid: Pid::from_raw(pid.cast_signed()).unwrap(), socket }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // Both fail only when a test has ended it itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Worker {
    name: WorkerName,
    pid: Pid,
    socket: Channel,
}

impl Worker {
    fn proc(&self, what: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{what}", self.pid.as_raw_pid()))
    }

    /// The end of its process, seen by the kernel.
    fn is_gone_soon(&self) -> bool {
        let Ok(process) = pidfd_open(self.pid, PidfdFlags::empty()) else { return true };
        let within = Timespec { tv_sec: SOON.as_secs().cast_signed(), tv_nsec: 0 };
        poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&within)).unwrap() == 1
    }
}

#[test]
fn a_worker_gets_one_socket_and_nothing_else_and_its_end_is_told() {
    // A descriptor that a careless parent leaves open must not reach the worker.
    let leaked = fs::File::open("/proc/self/status").unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();

    let launcher = Launcher::start();
    let worker = launcher.worker("one");
    assert_eq!(fs::read(worker.proc("environ")).unwrap(), b"", "the environment is empty");
    // Two handles of one socket count once.
    let targets: BTreeSet<String> = fs::read_dir(worker.proc("fd"))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .collect();
    assert_eq!(targets.iter().filter(|target| target.starts_with("socket:")).count(), 1, "{targets:?}");
    assert!(!targets.iter().any(|target| target.contains("/status")), "{targets:?}");
    let limits = fs::read_to_string(worker.proc("limits")).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert!(core.split_whitespace().take(2).all(|limit| limit == "1" || limit == "0"), "{core}");

    launcher.control.send(&ToLauncher::Kill { worker: worker.name.clone() }, &[]).unwrap();
    let FromLauncher::Exited { worker: gone, status } = launcher.said() else { panic!("no end was told") };
    assert_eq!((gone, status.as_str()), (worker.name.clone(), "killed by SIGKILL"));
    assert!(!worker.proc("stat").exists(), "told only after it was reaped");
    assert!(matches!(worker.socket.receive::<FromWorker>(), Err(ChannelError::Closed)));
}

#[test]
fn a_worker_that_ends_by_itself_is_told_with_its_exit_code() {
    let launcher = Launcher::start();
    let worker = launcher.worker("one");
    worker.socket.shutdown();
    let FromLauncher::Exited { worker: gone, status } = launcher.said() else { panic!("no end was told") };
    assert_eq!((gone, status.as_str()), (worker.name, "exit code 0"));
}

#[test]
fn the_end_of_control_ends_all_workers_and_the_launcher() {
    let mut launcher = Launcher::start();
    let (running, stopped) = (launcher.worker("running"), launcher.worker("stopped"));
    // One that cannot hear is ended as well.
    kill_process(stopped.pid, Signal::STOP).unwrap();
    launcher.control.shutdown();
    let status = child::wait_until(&mut launcher.process, Instant::now() + SOON).unwrap();
    assert!(status.expect("it ended in time").success());
    assert!(!running.proc("stat").exists() && !stopped.proc("stat").exists(), "it waits for them first");
}

#[test]
fn a_killed_launcher_takes_its_workers_along() {
    let mut launcher = Launcher::start();
    let worker = launcher.worker("one");
    kill_process(worker.pid, Signal::STOP).unwrap();
    launcher.process.kill().unwrap();
    launcher.process.wait().unwrap();
    assert!(worker.is_gone_soon());
    assert!(matches!(worker.socket.receive::<FromWorker>(), Err(ChannelError::Closed)));
}

#[test]
fn a_launcher_with_a_socket_serves_one_control_after_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("launcher.sock");
    let mut process = std::process::Command::new(program())
        .arg("launcher")
        .arg("--socket")
        .arg(&path)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Its first line says that it listens.
    let mut line = String::new();
    let mut log = std::io::BufReader::new(process.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut log, &mut line).unwrap();
    assert!(line.contains("waiting for control"), "{line}");

    let first = Launcher::greeted(process, Channel::new(UnixStream::connect(&path).unwrap()));
    let worker = first.worker("one");
    first.control.shutdown();
    assert!(worker.is_gone_soon());
    let second = Channel::new(UnixStream::connect(&path).unwrap());
    second.set_timeouts(Some(SOON), Some(SOON)).unwrap();
    second.send(&ToLauncher::Hello { version: PROTOCOL_VERSION }, &[]).unwrap();
    assert!(matches!(second.receive::<FromLauncher>().unwrap().0, FromLauncher::Hello { .. }));
}

#[test]
fn a_launcher_that_is_asked_to_end_serves_its_control_to_the_end_and_then_goes() {
    let directory = tempfile::tempdir().unwrap();
    let launcher = |name: &str| {
        let path = directory.path().join(name);
        let process =
            std::process::Command::new(program()).args(["launcher", "--socket"]).arg(&path).spawn().unwrap();
        (process, path)
    };
    let connected = |path: &std::path::Path| {
        let deadline = Instant::now() + SOON;
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return Channel::new(stream),
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(10)); // polls a file, with a deadline
        }
    };
    let asked = |process: &Child| {
        let pid = Pid::from_raw(process.id().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    };
    let ended = |process: &mut Child| {
        let status = child::wait_until(process, Instant::now() + SOON).unwrap();
        assert!(status.expect("it ended in time").success());
    };
    let (process, path) = launcher("busy");
    let mut busy = Launcher::greeted(process, connected(&path));
    asked(&busy.process);
    // It starts workers and says how they end, as before.
    let worker = busy.worker("one");
    busy.control.send(&ToLauncher::Kill { worker: worker.name.clone() }, &[]).unwrap();
    assert!(matches!(busy.said(), FromLauncher::Exited { .. }));
    busy.control.shutdown();
    ended(&mut busy.process);

    let (process, path) = launcher("idle");
    let mut idle = Launcher::greeted(process, connected(&path));
    idle.control.shutdown();
    // Once it listens again; before that the order is kept.
    asked(&idle.process);
    ended(&mut idle.process);
}

#[test]
fn another_version_and_an_order_without_a_socket_are_refused() {
    let mut launcher = Launcher::start();
    launcher.control.send(&ToLauncher::Spawn { worker: WorkerName("one".into()) }, &[]).unwrap();
    let FromLauncher::NotSpawned { message, .. } = launcher.said() else { panic!("it was started") };
    assert!(message.contains("not exactly one descriptor"), "{message}");
    launcher.control.send(&ToLauncher::Hello { version: PROTOCOL_VERSION + 1 }, &[]).unwrap();
    assert!(matches!(launcher.said(), FromLauncher::Hello { .. }), "it says its own version first");
    let status = child::wait_until(&mut launcher.process, Instant::now() + SOON).unwrap();
    assert!(!status.expect("it ended in time").success());
}

#[test]
fn a_number_that_is_no_open_socket_is_refused_in_words() {
    for (fd, part) in [("1", "standard stream"), ("999", "not open"), ("x", "invalid value")] {
        let output = std::process::Command::new(program()).args(["launcher", "--fd", fd]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(part), "{fd}: {said}");
    }
}
