//! The workers that a launcher has started: waited for by descriptors of their processes, so that a number which the
//! kernel has given to another process is never signalled.

use std::{
    collections::HashMap,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    process::{Child, ExitStatus},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tracing::warn;

use super::child;
use crate::protocol::WorkerName;

#[derive(Default)]
pub(super) struct Children(HashMap<WorkerName, Started>);

struct Started {
    child: Child,
    process: OwnedFd,
}

impl Children {
    /// Starts a worker with that end of its socket.
    pub(super) fn spawn(&mut self, name: WorkerName, socket: OwnedFd) -> io::Result<u32> {
        if self.0.contains_key(&name) {
            return Err(io::Error::other("a worker of that name runs already"));
        }
        let mut child = child::spawn(&child::this_program(), "worker", &socket)?;
        let pid = child.id();
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH);
        match process.and_then(|pid| pidfd_open(pid, PidfdFlags::empty())) {
            Ok(process) => {
                self.0.insert(name, Started { child, process });
                Ok(pid)
            }
            Err(error) => {
                // It cannot be watched, so it must not run.
                child.kill()?;
                child.wait()?;
                Err(error.into())
            }
        }
    }

    /// Ends a worker. One that is gone already has been, or will be, reported.
    pub(super) fn kill(&self, name: &WorkerName) {
        if let Some(started) = self.0.get(name) {
            started.kill();
        }
    }

    /// Waits until control has said something or closed, or a worker is gone. True for the former. No deadline: the
    /// kernel wakes us for each of both.
    pub(super) fn wait(&self, control: BorrowedFd<'_>) -> io::Result<bool> {
        let mut waits = vec![PollFd::from_borrowed_fd(control, PollFlags::IN)];
        waits.extend(self.0.values().map(|started| PollFd::new(&started.process, PollFlags::IN)));
        match poll(&mut waits, None) {
            Ok(_) => Ok(!waits[0].revents().is_empty()),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Those that are gone, with how they ended; they are forgotten.
    pub(super) fn reap(&mut self) -> Vec<(WorkerName, String)> {
        let mut gone = Vec::new();
        self.0.retain(|name, started| match started.child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                gone.push((name.clone(), words(status)));
                false
            }
            Err(error) => {
                warn!(worker = name.0, %error, "cannot ask for a worker's state");
                true
            }
        });
        gone
    }

    /// Kills all and waits for each. A killed process ends unless the kernel itself is stuck, and then waiting is right:
    /// its memory may still be written.
    pub(super) fn end_all(&mut self) -> usize {
        let count = self.0.len();
        self.0.values().for_each(Started::kill);
        for (name, mut started) in self.0.drain() {
            if let Err(error) = started.child.wait() {
                warn!(worker = name.0, %error, "cannot wait for a worker");
            }
        }
        count
    }
}

impl Started {
    fn kill(&self) {
        match pidfd_send_signal(self.process.as_fd(), Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => warn!(pid = self.child.id(), %error, "cannot kill a worker"),
        }
    }
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => match Signal::from_named_raw(signal) {
            Some(Signal::KILL) => "killed by SIGKILL".into(),
            Some(Signal::SEGV) => "killed by SIGSEGV".into(),
            Some(Signal::ABORT) => "killed by SIGABRT".into(),
            Some(Signal::BUS) => "killed by SIGBUS".into(),
            _ => format!("killed by signal {signal}"),
        },
        (None, None) => status.to_string(),
    }
}
