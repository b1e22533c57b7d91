//! What copies files otherwise, each with the options that make it fastest here. Those that are not installed are named
//! and left out; nothing is installed.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;

use super::Volumes;
use super::daemon::{RcloneHttp, RsyncDaemon};
use super::tar;
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

/// Starts the daemons of those that are installed.
pub fn start(volumes: &Volumes) -> Result<Vec<Peer<'_>>> {
    let mut peers = Vec::new();
    if is_installed(RSYNC) {
        let daemon = RsyncDaemon::start(&volumes.b)?;
        let copy: Copy = Box::new(move |name| {
            // Whole files, written in place; links, modes and times as our job keeps them.
            let arguments = ["-rlpt", "--whole-file", "--inplace"];
            timed(Command::new(RSYNC).args(arguments).arg(volumes.a.join(name)).arg(daemon.url()))
        });
        peers.push(Peer { name: RSYNC, rival: true, copy });
    }
    if is_installed(RCLONE) {
        let server = RcloneHttp::start(&volumes.a)?;
        let copy: Copy = Box::new(move |name| {
            let is_tree = volumes.a.join(name).is_dir();
            let mut command = Command::new(RCLONE);
            command.args(["--config", "", "--http-url", &server.url()]);
            command.args(["--multi-thread-streams", "4", "--transfers", "4", "--no-traverse"]);
            // Without a question for the size and time of each file, which a stream per file does not need.
            command.args(is_tree.then_some("--http-no-head"));
            // A directory's address ends with a slash.
            let (verb, end) = if is_tree { ("copy", "/") } else { ("copyto", "") };
            timed(command.arg(verb).arg(format!(":http:{name}{end}")).arg(volumes.b.join(name)))
        });
        peers.push(Peer { name: RCLONE, rival: true, copy });
    }
    peers.push(Peer { name: TAR, rival: true, copy: Box::new(|name| tar::copy(volumes, name)) });
    let cp: Copy =
        Box::new(|name| timed(Command::new(CP).arg("-r").arg(volumes.a.join(name)).arg(&volumes.b)));
    peers.push(Peer { name: CP, rival: false, copy: cp });
    Ok(peers)
}

/// The rivals that are not installed.
pub fn missing() -> Vec<&'static str> {
    [RSYNC, RCLONE].into_iter().filter(|name| !is_installed(name)).collect()
}

/// How to get what is missing, and what the peers are.
pub fn notes() -> Vec<String> {
    let missing = missing().into_iter().map(|name| {
        format!(
            "{name} is not installed, so its cells are left out and goals against it are not known; get it with the \
             system's package {name}, such as `apt-get install {name}`."
        )
    });
    let tar = "tar: one packs into a TCP connection that another unpacks from, each with the socket itself and no socat \
               between, which is faster than with it. It compares nothing, nor does cp, which is no rival but a \
               reference."
        .to_owned();
    missing.chain([tar]).collect()
}

fn is_installed(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_installed_is_known_and_named() {
        assert!(is_installed("tar") && !is_installed("no-such-program-of-anybody"));
        for name in missing() {
            assert!(notes().iter().any(|note| note.starts_with(name) && note.contains("apt-get install")));
        }
    }
}
