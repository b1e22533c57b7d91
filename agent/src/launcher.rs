//! The launcher: starts workers on control's order, reaps them, and says when one is gone. It never outlives the
//! connection to control with a worker alive. One thread, no Kubernetes, no NIXL; it holds no token and no volume.

pub mod child;
mod children;

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    time::Duration,
};

use anyhow::Context;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use tracing::{info, warn};

use crate::protocol::{
    FromLauncher, PROTOCOL_VERSION, ToLauncher,
    channel::{Channel, ChannelError},
};
use children::Children;

/// A message that has begun must be whole, and an answer taken, within this time; else control is taken as dead.
const MESSAGE_WITHIN: Duration = Duration::from_secs(10);

/// Serves the control process at the other end of `socket`, then returns with every worker gone.
pub fn serve_one(socket: OwnedFd) -> anyhow::Result<()> {
    let channel = Channel::new(UnixStream::from(socket));
    let poll = channel.try_clone()?.into_fd();
    channel.set_timeouts(Some(MESSAGE_WITHIN), Some(MESSAGE_WITHIN))?;
    let mut children = Children::default();
    let ended = serve(&channel, &poll, &mut children);
    let killed = children.end_all();
    info!(killed, "control is gone; no worker is left");
    ended
}

/// Listens on a socket that only this user can open, and serves one control process after the other, until SIGTERM. A control
/// that is connected then is served to its end: it needs the workers to end its hops.
pub fn listen(path: &Path) -> anyhow::Result<()> {
    let (asked_to_end, writes) = UnixStream::pair().context("a pipe for SIGTERM")?;
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGTERM, writes).context("SIGTERM")?;
    // A socket file of an earlier launcher; one that still lives has its own listener, which nobody reaches any more.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("--socket {}: cannot be replaced", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("--socket {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("--socket {}: permissions", path.display()))?;
    info!(socket = %path.display(), "waiting for control");
    loop {
        let mut waits = [&asked_to_end as &dyn AsFd, &listener]
            .map(|wait| PollFd::from_borrowed_fd(wait.as_fd(), PollFlags::IN));
        match poll(&mut waits, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error).context("waiting for control"),
        }
        if !waits[0].revents().is_empty() {
            info!("asked to stop, and no control is connected");
            return Ok(());
        }
        let (socket, _) = listener.accept().context("accepting control")?;
        info!("control has connected");
        if let Err(error) = serve_one(socket.into()) {
            warn!(error = format!("{error:#}"), "the connection to control broke");
        }
    }
}

/// Until the connection ends.
fn serve(channel: &Channel, poll: &OwnedFd, children: &mut Children) -> anyhow::Result<()> {
    loop {
        let readable = children.wait(poll.as_fd()).context("waiting for control and workers")?;
        for (worker, status) in children.reap() {
            info!(worker = worker.0, status, "worker is gone");
            answer(channel, &FromLauncher::Exited { worker, status })?;
        }
        if !readable {
            continue;
        }
        match channel.receive::<ToLauncher>() {
            Ok((message, descriptors)) => obey(channel, children, message, descriptors)?,
            Err(ChannelError::Closed) => return Ok(()),
            Err(error) => return Err(error).context("from control"),
        }
    }
}

fn obey(
    channel: &Channel,
    children: &mut Children,
    message: ToLauncher,
    mut descriptors: Vec<OwnedFd>,
) -> anyhow::Result<()> {
    match message {
        ToLauncher::Hello { version } => {
            answer(channel, &FromLauncher::Hello { version: PROTOCOL_VERSION, pid: std::process::id() })?;
            anyhow::ensure!(
                version == PROTOCOL_VERSION,
                "control speaks version {version}, this launcher {PROTOCOL_VERSION}; run both from one image"
            );
            Ok(())
        }
        ToLauncher::Spawn { worker } => {
            let started = match (descriptors.pop(), descriptors.is_empty()) {
                (Some(socket), true) => children.spawn(worker.clone(), socket),
                _ => Err(io::Error::other("the order carries not exactly one descriptor")),
            };
            let reply = match started {
                Ok(pid) => FromLauncher::Spawned { worker, pid },
                Err(error) => FromLauncher::NotSpawned { worker, message: error.to_string() },
            };
            answer(channel, &reply)
        }
        ToLauncher::Kill { worker } => {
            children.kill(&worker);
            Ok(())
        }
    }
}

fn answer(channel: &Channel, message: &FromLauncher) -> anyhow::Result<()> {
    channel.send(message, &[]).context("to control")
}
