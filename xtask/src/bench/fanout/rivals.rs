//! What brings a file to many nodes otherwise: rsync once for each of them, and a chain of plain sockets of our own
//! (`tests/examples/bench_chain.rs`).

use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use devcluster::free_port;

use crate::bench::daemon::RsyncDaemon;
use crate::bench::files::peers;
use crate::bench::host::Host;
use crate::bench::installed::is_installed;
use crate::bench::namespaces::Namespaces;
use crate::bench::owned::Owned;
use crate::bench::program::{LONGEST, example, timed};

pub const RSYNC: &str = peers::RSYNC;

/// Node 0 is the source.
pub struct Rivals<'a> {
    spaces: &'a Namespaces,
    volumes: &'a [PathBuf],
    /// One on each receiver.
    daemons: Vec<RsyncDaemon>,
}

impl<'a> Rivals<'a> {
    pub fn start(spaces: &'a Namespaces, volumes: &'a [PathBuf]) -> Result<Self> {
        let start = |at: usize| RsyncDaemon::start(Host::Node(spaces, at), &volumes[at]);
        let receivers = if is_installed(RSYNC) { 1..volumes.len() } else { 0..0 };
        Ok(Self { spaces, volumes, daemons: receivers.map(start).collect::<Result<_>>()? })
    }

    /// One rsync for each of so many receivers, all at once.
    pub fn star(&self, name: &str, count: usize) -> Result<Duration> {
        let since = Instant::now();
        let mut running = Vec::new();
        for daemon in &self.daemons[..count] {
            let mut rsync = peers::rsync(Host::Node(self.spaces, 0), &self.volumes[0].join(name));
            running.push(Owned::start(rsync.arg(daemon.url()).stdin(Stdio::null()))?);
        }
        running.into_iter().try_for_each(|rsync| rsync.wait(LONGEST))?;
        Ok(since.elapsed())
    }

    /// The last one is started first, for each connects to the next.
    pub fn chain(&self, name: &str, count: usize) -> Result<Duration> {
        let mut next: Option<String> = None;
        let mut receivers = Vec::new();
        for at in (1..=count).rev() {
            let host = Host::Node(self.spaces, at);
            let address = format!("{}:{}", host.address(), free_port()?);
            let mut command = example("bench_chain");
            command.args(["receive", &address]).arg(self.volumes[at].join(name)).args(&next);
            let mut receiver =
                Owned::start(host.inside(command).stdin(Stdio::null()).stdout(Stdio::piped()))?;
            let mut said = [0; 6];
            receiver.child.stdout.take().context("no pipe")?.read_exact(&mut said)?;
            ensure!(said == *b"ready\n", "a receiver said {said:?}");
            receivers.push(receiver);
            next = Some(address);
        }
        let mut sender = example("bench_chain");
        sender.arg("send").args(&next).arg(self.volumes[0].join(name));
        let took = timed(&mut Host::Node(self.spaces, 0).inside(sender))?;
        receivers.into_iter().try_for_each(|receiver| receiver.wait(LONGEST))?;
        Ok(took)
    }
}
