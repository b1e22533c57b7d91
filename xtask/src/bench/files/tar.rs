//! The pipe of two tars over TCP on the loopback device. Each tar has the socket as its standard input or output.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Volumes;
use crate::bench::owned::Owned;
use crate::bench::program::LONGEST;

pub fn copy(volumes: &Volumes, name: &str) -> Result<Duration> {
    let since = Instant::now();
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let sending = TcpStream::connect(listener.local_addr()?)?;
    let (receiving, _) = listener.accept()?;
    // This process keeps neither socket: the unpacking one would wait for more.
    let packing =
        Owned::start(tar(&volumes.a).args(["-cf-", name]).stdin(Stdio::null()).stdout(socket(sending)))?;
    let unpacking = Owned::start(tar(&volumes.b).arg("-xf-").stdin(socket(receiving)))?;
    packing.wait(LONGEST)?;
    unpacking.wait(LONGEST)?;
    Ok(since.elapsed())
}

fn tar(directory: &Path) -> Command {
    let mut command = Command::new("tar");
    // Records of 1 MiB instead of the ten KiB of tapes.
    command.arg("--blocking-factor=2048").arg("-C").arg(directory);
    command
}

fn socket(stream: TcpStream) -> Stdio {
    Stdio::from(OwnedFd::from(stream))
}
