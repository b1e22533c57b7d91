//! rsync with `--partial`: its client is killed half way, and the same command is given again.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::bench::daemon::RsyncDaemon;
use crate::bench::files::Volumes;
use crate::bench::files::peers::RSYNC;
use crate::bench::host::Host;
use crate::bench::owned::Owned;
use crate::bench::program::timed;

pub struct Rsync<'a> {
    from: Host<'a>,
    volumes: &'a Volumes,
    name: &'a str,
    daemon: RsyncDaemon,
}

impl<'a> Rsync<'a> {
    pub fn start(from: Host<'a>, to: Host<'a>, volumes: &'a Volumes, name: &'a str) -> Result<Self> {
        Ok(Self { from, volumes, name, daemon: RsyncDaemon::start(to, &volumes.b)? })
    }

    /// To its end.
    pub fn copy(&self) -> Result<()> {
        timed(&mut self.command()).map(drop)
    }

    /// Kills the client when so many bytes are there, and waits until the daemon has put what there is in its place.
    pub fn die(&self, bytes: u64, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        let client = Owned::start(self.command().stdin(Stdio::null()))?;
        while temporary_bytes(&self.volumes.b, self.name) < bytes {
            ensure!(!client.has_ended(Duration::from_millis(2))?, "rsync was done before it was killed");
            ensure!(Instant::now() < deadline, "rsync does not get to {bytes} bytes");
        }
        drop(client);
        while !self.volumes.b.join(self.name).exists() {
            ensure!(Instant::now() < deadline, "rsync's daemon keeps nothing of what came");
            std::thread::park_timeout(Duration::from_millis(10)); // polls a file, which gives no event
        }
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = self.from.command(RSYNC);
        // Differences only, so that what is there is not sent again.
        command.args(["-rlpt", "--partial", "--no-whole-file"]);
        command.arg(self.volumes.a.join(self.name)).arg(self.daemon.url());
        command
    }
}

/// Of the file that it writes before it gives it the name: `.NAME.XXXXXX`.
fn temporary_bytes(directory: &Path, name: &str) -> u64 {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_ours = |file: &fs::DirEntry| file.file_name().to_string_lossy().starts_with(&format!(".{name}."));
    files.filter(is_ours).filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}
