//! What copies files otherwise, each with the options that make it fastest here. Those that are not installed are named
//! and left out; nothing is installed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::Volumes;
use super::tar;
use crate::bench::daemon::{RcloneHttp, RsyncDaemon};
use crate::bench::host::Host;
use crate::bench::installed::{is_installed, missing_note};
use crate::bench::program::timed;

pub const RSYNC: &str = "rsync";
pub const RCLONE: &str = "rclone";
pub const TAR: &str = "tar";
const CP: &str = "cp";

/// Copies the file or directory of this name from one volume to the other and gives the time that this took.
type Copy<'a> = Box<dyn Fn(&str) -> Result<Duration> + 'a>;

pub struct Peer<'a> {
    pub name: &'static str,
    pub rival: bool,
    pub copy: Copy<'a>,
}

/// Everybody who is here, on the loopback device.
pub fn start(volumes: &Volumes) -> Result<Vec<Peer<'_>>> {
    let mut peers = with_daemons(volumes, Host::Loopback, Host::Loopback)?;
    peers.push(Peer { name: TAR, rival: true, copy: Box::new(|name| tar::copy(volumes, name)) });
    let cp: Copy =
        Box::new(|name| timed(Command::new(CP).arg("-r").arg(volumes.a.join(name)).arg(&volumes.b)));
    peers.push(Peer { name: CP, rival: false, copy: cp });
    Ok(peers)
}

/// Those that need a daemon, which is started, as far as they are installed.
pub fn with_daemons<'a>(volumes: &'a Volumes, from: Host<'a>, to: Host<'a>) -> Result<Vec<Peer<'a>>> {
    let mut peers = Vec::new();
    if is_installed(RSYNC) {
        let daemon = RsyncDaemon::start(to, &volumes.b)?;
        let copy: Copy = Box::new(move |name| timed(rsync(from, &volumes.a.join(name)).arg(daemon.url())));
        peers.push(Peer { name: RSYNC, rival: true, copy });
    }
    if is_installed(RCLONE) {
        let server = RcloneHttp::start(from, &volumes.a)?;
        let copy: Copy = Box::new(move |name| {
            let is_tree = volumes.a.join(name).is_dir();
            let mut command = to.command(RCLONE);
            command.args(["--config", "", "--http-url", server.url()]);
            command.args(["--multi-thread-streams", "4", "--transfers", "4", "--no-traverse"]);
            // Without a question for the size and time of each file, which a stream per file does not need.
            command.args(is_tree.then_some("--http-no-head"));
            // A directory's address ends with a slash.
            let (verb, end) = if is_tree { ("copy", "/") } else { ("copyto", "") };
            timed(command.arg(verb).arg(format!(":http:{name}{end}")).arg(volumes.b.join(name)))
        });
        peers.push(Peer { name: RCLONE, rival: true, copy });
    }
    Ok(peers)
}

/// Whole files, written in place; links, modes and times as our job keeps them. The daemon's address is yet to be said.
pub fn rsync(from: Host, what: &Path) -> Command {
    let mut command = from.command(RSYNC);
    command.args(["-rlpt", "--whole-file", "--inplace"]).arg(what);
    command
}

/// The rivals that are not installed.
pub fn missing() -> Vec<&'static str> {
    [RSYNC, RCLONE].into_iter().filter(|name| !is_installed(name)).collect()
}

/// How to get what is missing, and what the peers are.
pub fn notes() -> Vec<String> {
    let missing = missing().into_iter().map(missing_note);
    let tar = "tar: one packs into a TCP connection that another unpacks from, each with the socket itself and no socat \
               between, which would copy everything twice more. It compares nothing, nor does cp, which is no rival but a \
               reference."
        .to_owned();
    missing.chain([tar]).collect()
}
