//! Two network namespaces with a pair of virtual Ethernet devices between them. They are gone when their owner is: each
//! lives as long as a process that holds it. UCX looks for devices in /sys, so each has its own there. Needs root.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::owned::Owned;
use crate::exec;

/// The device's name on both sides.
pub const DEVICE: &str = "bench0";
/// The address of the second namespace.
pub const RECEIVER: &str = "10.77.0.2";

#[derive(Debug)]
pub struct Namespaces([Owned; 2]);

impl Namespaces {
    /// Why there can be none, if so.
    pub fn possible() -> Result<(), String> {
        let tried =
            exec::output("unshare", &["--net", "--mount", "true"]).and_then(|_| exec::output("ip", &["-V"]));
        tried.map(drop).map_err(|error| format!("{error:#}"))
    }

    pub fn start() -> Result<Self> {
        let hold = || {
            let mut command = Command::new("unshare");
            // Ends with its input, so also when its owner is killed.
            let script = "mount -t sysfs none /sys && exec cat";
            command.args(["--net", "--mount", "sh", "-c", script]);
            Owned::start(command.stdin(Stdio::piped()).stdout(Stdio::null()))
        };
        let spaces = Self([hold()?, hold()?]);
        for (side, _) in spaces.0.iter().enumerate() {
            spaces.wait_made(side)?;
        }
        let [one, other] = spaces.0.each_ref().map(|space| space.child.id().to_string());
        let pair =
            ["link", "add", DEVICE, "netns", &one, "type", "veth", "peer", "name", DEVICE, "netns", &other];
        exec::output("ip", &pair)?;
        for (side, address) in ["10.77.0.1/24", "10.77.0.2/24"].into_iter().enumerate() {
            for arguments in [
                &["address", "add", address, "dev", DEVICE][..],
                &["link", "set", DEVICE, "up"],
                &["link", "set", "lo", "up"],
            ] {
                spaces.run(side, "ip", arguments)?;
            }
        }
        spaces.wait_up(0)?;
        spaces.wait_up(1)?;
        Ok(spaces)
    }

    /// The command that starts another in a namespace, 0 or 1.
    pub fn enter(&self, side: usize) -> String {
        let pid = self.0[side].child.id();
        format!("nsenter --net=/proc/{pid}/ns/net --mount=/proc/{pid}/ns/mnt")
    }

    /// A program in a namespace.
    pub fn command(&self, side: usize, program: &str) -> Command {
        let enter = self.enter(side);
        let mut words = enter.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg(program);
        command
    }

    fn run(&self, side: usize, program: &str, arguments: &[&str]) -> Result<()> {
        exec::watched(self.command(side, program).args(arguments), |_| {})
    }

    /// The kernel takes its time to see that the other side is up too.
    fn wait_up(&self, side: usize) -> Result<()> {
        let state = format!("/sys/class/net/{DEVICE}/operstate");
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let state = self.command(side, "cat").arg(&state).output()?;
            if state.stdout.trim_ascii() == b"up" {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{DEVICE} does not come up");
        }
    }

    /// The holder has made all when it has become `cat`.
    fn wait_made(&self, side: usize) -> Result<()> {
        let name = format!("/proc/{}/comm", self.0[side].child.id());
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::fs::read_to_string(&name)?.trim() != "cat" {
            ensure!(Instant::now() < deadline, "no network namespace in time");
            // Asked again after a while, unless it ends before.
            if self.0[side].has_ended(Duration::from_millis(5))? {
                bail!("a network namespace could not be made");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_namespaces_reach_each_other_where_they_are_possible() {
        if let Err(why) = Namespaces::possible() {
            eprintln!("not shown here: {why}");
            return;
        }
        let spaces = Namespaces::start().unwrap();
        let address = spaces.command(1, "ip").args(["-o", "address", "show", DEVICE]).output().unwrap();
        assert!(String::from_utf8_lossy(&address.stdout).contains(RECEIVER));
        let link = spaces.command(0, "ip").args(["route", "get", RECEIVER]).output().unwrap();
        assert!(String::from_utf8_lossy(&link.stdout).contains(DEVICE));
        let holder = spaces.0[0].child.id();
        drop(spaces);
        assert!(!std::path::Path::new(&format!("/proc/{holder}")).exists());
    }
}
