//! The servers that peers need: rsync's daemon and rclone's http server. Ended with their owner.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use devcluster::free_port;

use super::host::Host;
use super::owned::Owned;

const STARTED_WITHIN: Duration = Duration::from_secs(10);

/// Serves one directory for writing.
#[derive(Debug)]
pub struct RsyncDaemon {
    _daemon: Owned,
    url: String,
}

impl RsyncDaemon {
    /// Its configuration is written beside the directory.
    pub fn start(host: Host, directory: &Path) -> Result<Self> {
        let (address, port) = (host.address(), free_port()?);
        let config = directory.with_extension("rsyncd.conf");
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let text = format!(
            "use chroot = no\naddress = {address}\nuid = {user}\ngid = {group}\n[data]\npath = {}\nread only = no\n",
            directory.display()
        );
        fs::write(&config, text)?;
        let mut command = host.command("rsync");
        command.args(["--daemon", "--no-detach", &format!("--port={port}")]);
        let daemon = start(command.arg(format!("--config={}", config.display())), port)?;
        Ok(Self { _daemon: daemon, url: format!("rsync://{address}:{port}/data/") })
    }

    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Serves one directory for reading.
#[derive(Debug)]
pub struct RcloneHttp {
    _server: Owned,
    url: String,
}

impl RcloneHttp {
    pub fn start(host: Host, directory: &Path) -> Result<Self> {
        let (address, port) = (host.address(), free_port()?);
        let mut command = host.command("rclone");
        command.args(["--config", "", "serve", "http", "--addr", &format!("{address}:{port}")]);
        // Its listing of directories is not remembered: they come and go between two cases.
        let server = start(command.args(["--dir-cache-time", "0s", "--read-only"]).arg(directory), port)?;
        Ok(Self { _server: server, url: format!("http://{address}:{port}/") })
    }

    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Returns when it listens.
pub fn start(command: &mut Command, port: u16) -> Result<Owned> {
    let daemon = Owned::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    let deadline = Instant::now() + STARTED_WITHIN;
    // The sockets of the network namespace that it is in by now.
    let sockets = format!("/proc/{}/net/tcp", daemon.child.id());
    while !listens(&fs::read_to_string(&sockets).unwrap_or_default(), port) {
        // Asked again after a while, unless it ends before.
        if daemon.has_ended(Duration::from_millis(20))? || Instant::now() >= deadline {
            bail!("{command:?} does not listen");
        }
    }
    Ok(daemon)
}

/// Whether the kernel's list of sockets has one that listens on the port.
fn listens(sockets: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    sockets.lines().any(|line| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1).unwrap_or_default();
        local.ends_with(&format!(":{port:04X}")) && fields.nth(1) == Some(LISTEN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_listens_is_told_from_one_that_is_connected() {
        let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = std::net::TcpStream::connect(listening.local_addr().unwrap()).unwrap();
        let sockets = fs::read_to_string("/proc/self/net/tcp").unwrap();
        assert!(listens(&sockets, listening.local_addr().unwrap().port()));
        assert!(!listens(&sockets, connected.local_addr().unwrap().port()));
        assert!(!listens("", 80));
    }
}
