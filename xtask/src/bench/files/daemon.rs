//! The servers that peers need, on the loopback device: rsync's daemon and rclone's http server. Ended with their owner.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use devcluster::free_port;

use crate::bench::owned::Owned;

const STARTED_WITHIN: Duration = Duration::from_secs(10);

/// Serves one directory for writing.
#[derive(Debug)]
pub struct RsyncDaemon {
    _daemon: Owned,
    port: u16,
}

impl RsyncDaemon {
    /// Its configuration is written beside the directory.
    pub fn start(directory: &Path) -> Result<Self> {
        let port = free_port()?;
        let config = directory.with_extension("rsyncd.conf");
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let text = format!(
            "use chroot = no\naddress = 127.0.0.1\nuid = {user}\ngid = {group}\n[data]\npath = {}\nread only = no\n",
            directory.display()
        );
        fs::write(&config, text)?;
        let mut command = Command::new("rsync");
        command.args(["--daemon", "--no-detach", &format!("--port={port}")]);
        let daemon = start(command.arg(format!("--config={}", config.display())), port)?;
        Ok(Self { _daemon: daemon, port })
    }

    pub fn url(&self) -> String {
        format!("rsync://127.0.0.1:{}/data/", self.port)
    }
}

/// Serves one directory for reading.
#[derive(Debug)]
pub struct RcloneHttp {
    _server: Owned,
    port: u16,
}

impl RcloneHttp {
    pub fn start(directory: &Path) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new("rclone");
        command.args(["--config", "", "serve", "http", "--addr", &format!("127.0.0.1:{port}")]);
        // Its listing of directories is not remembered: they come and go between two cases.
        let server = start(command.args(["--dir-cache-time", "0s", "--read-only"]).arg(directory), port)?;
        Ok(Self { _server: server, port })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }
}

/// Returns when it listens.
fn start(command: &mut Command, port: u16) -> Result<Owned> {
    let daemon = Owned::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    let deadline = Instant::now() + STARTED_WITHIN;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        // Asked again after a while, unless it ends before.
        if daemon.has_ended(Duration::from_millis(20))? || Instant::now() >= deadline {
            bail!("{command:?} does not listen");
        }
    }
    Ok(daemon)
}
