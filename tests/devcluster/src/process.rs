//! One child process with its log: start, watch, signal, stop. A handle that is dropped kills the process and its group.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};

use crate::cluster_dir::Registry;
use crate::spawn::{Tie, spawn};

/// How a process is started; kept to start it again.
#[derive(Clone, Debug)]
pub struct Launch {
    pub name: String,
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(String, OsString)>,
    pub directory: PathBuf,
    /// Standard output and error, appended.
    pub log: PathBuf,
    pub tie: Tie,
}

/// A running (or ended) child.
#[derive(Debug)]
pub struct Process {
    launch: Launch,
    child: Child,
    pid: Pid,
    ended: OwnedFd,
    registry: Arc<Registry>,
    /// Left running when the handle goes (`demo --keep`).
    left: bool,
}

impl Process {
    /// Starts it and enters it into the cluster's list of processes.
    pub(crate) fn start(launch: &Launch, registry: &Arc<Registry>) -> Result<Self> {
        let log = open_log(&launch.log)?;
        let mut command = Command::new(&launch.program);
        command
            .args(&launch.arguments)
            .envs(launch.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&launch.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = spawn(command, launch.tie)
            .with_context(|| format!("cannot start {} ({})", launch.name, launch.program.display()))?;
        let pid = Pid::from_child(&child);
        let ended =
            pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("pidfd of {}", launch.name))?;
        let process =
            Self { launch: launch.clone(), child, pid, ended, registry: registry.clone(), left: false };
        process.registry.add(&process.launch.name, process.pid())?;
        Ok(process)
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    pub fn name(&self) -> &str {
        &self.launch.name
    }

    pub fn log(&self) -> &Path {
        &self.launch.log
    }

    pub fn is_running(&self) -> bool {
        !self.wait(Duration::ZERO)
    }

    /// Waits for its end, at most `timeout`; true when it has ended.
    pub fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            match poll(&mut [PollFd::new(&self.ended, PollFlags::IN)], Some(&left)) {
                Ok(count) => return count > 0,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return true,
            }
        }
    }

    /// Sends a signal to the process alone, not to what it started.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid, signal).with_context(|| format!("signal to {}", self.name()))
    }

    /// SIGKILL to the process alone, and waits for its end: what it started must notice by itself.
    pub fn kill9(&self) -> Result<()> {
        if self.is_running() {
            self.signal(Signal::KILL)?;
        }
        if self.wait(Duration::from_secs(10)) {
            Ok(())
        } else {
            bail!("{} did not end after SIGKILL", self.name())
        }
    }

    /// SIGTERM, then after `grace` SIGKILL; then the rest of its group. True when it ended by itself in time.
    pub fn stop(mut self, grace: Duration) -> bool {
        self.end(grace)
    }

    /// Lets it go on after this handle and this process are gone.
    pub(crate) fn leave(mut self) {
        self.left = true;
    }

    /// Runs `ready` every 50 ms until it is true. Ends early, with the last log lines, when the process ends or `deadline` passes.
    pub fn wait_ready(&self, deadline: Instant, ready: impl FnMut() -> bool) -> Result<()> {
        self.wait_ready_every(Duration::from_millis(50), deadline, ready)
    }

    /// The same with another pause, for a `ready` that costs something.
    pub fn wait_ready_every(
        &self,
        pause: Duration,
        deadline: Instant,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        loop {
            if ready() {
                return Ok(());
            }
            if self.wait(pause) {
                bail!("{} ended before it was ready\n{}", self.name(), self.log_tail());
            }
            if Instant::now() >= deadline {
                bail!("{} was not ready in time\n{}", self.name(), self.log_tail());
            }
        }
    }

    /// The last lines of its log, with the log's path: for error messages.
    pub fn log_tail(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut lines: Vec<&str> = text.lines().rev().take(15).collect();
        lines.reverse();
        format!("last lines of {}:\n  {}", self.log().display(), lines.join("\n  "))
    }

    fn end(&mut self, grace: Duration) -> bool {
        let _ = kill_process(self.pid, Signal::TERM);
        let in_time = self.wait(grace);
        if !in_time {
            let _ = kill_process(self.pid, Signal::KILL);
            self.wait(Duration::from_secs(10));
        }
        self.bury();
        in_time
    }

    /// Ends the group and reaps the leader, in this order: as long as the leader is not reaped its number cannot be given
    /// to another process, so the signal cannot hit a stranger.
    fn bury(&mut self) {
        if self.left {
            return;
        }
        self.left = true;
        let _ = kill_process_group(self.pid, Signal::KILL);
        let _ = self.child.wait();
        self.registry.remove(self.pid());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.bury();
    }
}

fn open_log(path: &Path) -> Result<File> {
    let open = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    open.with_context(|| format!("cannot open the log {}", path.display()))
}
