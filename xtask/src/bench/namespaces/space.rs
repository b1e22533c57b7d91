//! One network namespace: it lives as long as a process that holds it, or that runs in it. UCX looks for devices in /sys, so each has its own
//! there. Needs root.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::bench::owned::Owned;
use crate::exec;

const WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Space(Owned);

impl Space {
    /// Begins to make one; see [`Space::wait_made`].
    pub fn start() -> Result<Self> {
        let mut command = Command::new("unshare");
        // Ends with its input, so also when its owner is killed.
        let script = "mount -t sysfs none /sys && exec cat";
        command.args(["--net", "--mount", "sh", "-c", script]);
        Ok(Self(Owned::start(command.stdin(Stdio::piped()).stdout(Stdio::null()))?))
    }

    /// The holder has made all when it has become `cat`.
    pub fn wait_made(&self) -> Result<()> {
        let name = format!("/proc/{}/comm", self.holder());
        let deadline = Instant::now() + WITHIN;
        while std::fs::read_to_string(&name)?.trim() != "cat" {
            ensure!(Instant::now() < deadline, "no network namespace in time");
            // Asked again after a while, unless it ends before.
            if self.0.has_ended(Duration::from_millis(5))? {
                bail!("a network namespace could not be made");
            }
        }
        Ok(())
    }

    /// The process that holds it.
    pub fn holder(&self) -> u32 {
        self.0.child.id()
    }

    /// The words of the command that starts another in it and becomes that one.
    pub fn enter(&self) -> Vec<String> {
        let holder = format!("/proc/{}/ns", self.holder());
        vec!["nsenter".into(), format!("--net={holder}/net"), format!("--mount={holder}/mnt")]
    }

    /// A program in it, which the kernel kills when the thread that started it is gone: what runs in a namespace keeps it.
    pub fn command(&self, program: &str) -> Command {
        let enter = self.enter();
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).args(["setpriv", "--pdeathsig", "KILL", program]);
        command
    }

    /// The same command as that one, in it.
    pub fn inside(&self, outside: &Command) -> Command {
        let mut command = self.command(&outside.get_program().to_string_lossy());
        command.args(outside.get_args());
        command.envs(outside.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    }

    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        exec::watched(self.command(program).args(arguments), |_| {})
    }

    /// The kernel takes its time to see that the other side of a device is up too.
    pub fn wait_up(&self, device: &str) -> Result<()> {
        let deadline = Instant::now() + WITHIN;
        while self.read(&format!("/sys/class/net/{device}/operstate"))?.trim() != "up" {
            ensure!(Instant::now() < deadline, "{device} does not come up");
        }
        Ok(())
    }

    /// What it has sent by the device since that was made, headers included.
    pub fn sent_by(&self, device: &str) -> Result<u64> {
        Ok(self.read(&format!("/sys/class/net/{device}/statistics/tx_bytes"))?.trim().parse()?)
    }

    fn read(&self, path: &str) -> Result<String> {
        let output = self.command("cat").arg(path).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
