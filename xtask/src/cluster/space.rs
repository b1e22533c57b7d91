//! A space is what a machine of the cluster is made of: a network, mounts and processes of its own. Its first process keeps
//! it; when that is killed, the kernel ends everything in it and takes its devices and mounts away.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use devcluster::ProcessInfo;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::init::MADE;
use super::record::lives;
use crate::exec;

/// For anything that takes the kernel a moment.
pub const SOON: Duration = Duration::from_secs(20);

/// A new one: nothing runs in it yet, and it ends with this process until it is let go.
#[derive(Debug)]
pub struct Space {
    pub name: String,
    /// The program `unshare`, and then the first process of the space.
    pub processes: [ProcessInfo; 2],
    go: ChildStdin,
}

impl Space {
    /// What it will do, once it is let go, stands in the file `plan`; what it says goes to `log`.
    pub fn start(name: &str, plan: &Path, log: &Path) -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["--propagation", "private", "--"]).arg(std::env::current_exe()?);
        command.args(["cluster", "init"]).arg(plan);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(log)?);
        // Ctrl-C is for the command, not for what it has made.
        let mut child =
            command.process_group(0).spawn().context("cannot start unshare (package util-linux)")?;
        let (go, said) = child.stdin.take().zip(child.stdout.take()).context("a process without pipes")?;
        let (sender, heard) = channel();
        thread::spawn(move || {
            let mut line = String::new();
            // An error is an end without a word; nobody may be there to hear it.
            let _ = BufReader::new(said).read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = heard.recv_timeout(SOON).unwrap_or_default();
        let failed = || format!("{name} could not be made; its log is {}", log.display());
        ensure!(line.trim() == MADE, failed());
        let outer = devcluster::process(child.id().try_into()?).with_context(failed)?;
        let first = devcluster::descendants(outer.pid).into_iter().next().with_context(failed)?;
        Ok(Self { name: name.to_owned(), processes: [outer, first], go })
    }

    pub fn pid(&self) -> i32 {
        self.processes[1].pid
    }

    /// It begins its work, and goes on when this process is gone.
    pub fn let_go(mut self) -> Result<()> {
        self.go.write_all(b"go\n").with_context(|| format!("{} has ended", self.name))
    }
}

/// A program in the network, and with the mounts, of the space with this first process.
pub fn inside(pid: i32, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid.to_string(), "--net", "--mount", program]);
    command
}

/// A short command in it.
pub fn run_inside(pid: i32, program: &str, arguments: &[&str]) -> Result<()> {
    exec::watched_within(inside(pid, program).args(arguments), SOON, |_| {})
}

/// Kills a recorded process, if it still is that one, and returns when it is gone.
pub fn end(process: &ProcessInfo, deadline: Instant) -> Result<()> {
    let Some(pid) = Pid::from_raw(process.pid) else { return Ok(()) };
    // Whoever it is now: this descriptor means no other.
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(()),
        handle => handle.context("cannot watch a process")?,
    };
    if !lives(process) {
        return Ok(());
    }
    match pidfd_send_signal(&handle, Signal::KILL) {
        Err(Errno::SRCH) => return Ok(()),
        sent => sent.with_context(|| format!("cannot end process {pid}"))?,
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec { tv_sec: left.as_secs().try_into()?, tv_nsec: left.subsec_nanos().into() };
    let ended = poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&left))? > 0;
    ensure!(ended, "process {pid} does not end after SIGKILL: `ps -o stat,wchan {pid}` says what holds it");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_process_is_ended_and_another_of_its_number_is_not() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = devcluster::process(child.id() as i32).unwrap();
        let other = ProcessInfo { start_time: process.start_time + 1, ..process.clone() };
        let deadline = Instant::now() + SOON;
        end(&other, deadline).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        end(&process, deadline).unwrap();
        assert!(!child.wait().unwrap().success());
        end(&process, deadline).unwrap();
    }
}
