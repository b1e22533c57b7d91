//! A process that ends with its owner, and is waited for with a deadline.

use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Killed and awaited when it is dropped.
#[derive(Debug)]
pub struct Owned {
    pub child: Child,
    name: String,
}

impl Owned {
    pub fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, name })
    }

    /// Whether it has ended, after waiting at most `limit`.
    pub fn has_ended(&self, limit: Duration) -> Result<bool> {
        let ended = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        let limit = Timespec { tv_sec: limit.as_secs().try_into()?, tv_nsec: limit.subsec_nanos().into() };
        Ok(poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&limit))? > 0)
    }

    /// An error unless it ends well in time.
    pub fn wait(mut self, limit: Duration) -> Result<()> {
        ensure!(self.has_ended(limit)?, "{} takes too long", self.name);
        let status = self.child.wait()?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Both fail only for one that has ended and was awaited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_waited_for_and_judged() {
        let start = |program: &str| Owned::start(&mut Command::new(program)).unwrap();
        assert!(start("true").wait(Duration::from_secs(20)).is_ok());
        assert!(start("false").wait(Duration::from_secs(20)).unwrap_err().to_string().contains("ended with"));
        let slow = Owned::start(Command::new("sleep").arg("60")).unwrap();
        assert!(slow.wait(Duration::from_millis(20)).unwrap_err().to_string().contains("too long"));
    }
}
