//! Control's connection to the launcher: one thread that starts it (or connects to it), hears it, waits for its end, and
//! begins again after a pause. Everything goes to the pool as events.

use std::{
    io,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Child,
    sync::mpsc as plain,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::{Outgoing, Writer};
use crate::{
    launcher::child,
    protocol::{
        FromLauncher, PROTOCOL_VERSION, ToLauncher,
        channel::{Channel, ChannelError},
    },
};

/// Where the launcher is.
#[derive(Clone, Debug)]
pub enum Launcher {
    /// Control starts it itself, from this program.
    Child {
        /// `transfer-agent`.
        program: PathBuf,
    },
    /// It listens on this socket, in a container of its own.
    Socket(PathBuf),
}

/// What the thread tells.
#[derive(Debug)]
pub enum LauncherEvent {
    /// A launcher is there.
    Up {
        /// Where orders go.
        orders: mpsc::Sender<Outgoing<ToLauncher>>,
        /// Its socket: shut down, it ends the launcher, and with it all workers.
        socket: Channel,
    },
    /// It said something.
    Message(FromLauncher),
    /// It is gone, and with it, sooner or later, every worker that it had started.
    Down(String),
}

/// The greeting must be answered within this time.
const GREETED_WITHIN: Duration = Duration::from_secs(10);
/// A launcher that has closed its socket must end within this time; it waits for its workers.
const ENDED_WITHIN: Duration = Duration::from_secs(5);
/// An order to end is seen within this time.
const STOP_SEEN_WITHIN: Duration = Duration::from_millis(200);
/// Pause before the next one is started or tried.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// One that has lived so long was well; the pause begins anew.
const WELL_AFTER: Duration = Duration::from_secs(30);

/// The thread, and the way to end it.
#[derive(Debug)]
pub struct Connection {
    /// Nothing is ever sent: when this is dropped, the thread is asked to end.
    stop: plain::Sender<()>,
    thread: JoinHandle<()>,
}

impl Connection {
    /// Starts the thread. It ends when `stop` is called or nobody hears its events, and then the launcher ends too.
    pub fn start(launcher: Launcher, events: mpsc::Sender<LauncherEvent>) -> io::Result<Self> {
        let (stop, stopped) = plain::channel();
        let keep = move || keep(&launcher, &events, &stopped);
        let thread = std::thread::Builder::new().name("launcher".into()).spawn(keep)?;
        Ok(Self { stop, thread })
    }

    /// Ends connection and launcher, and with it all workers; returns when the launcher is gone. Blocking.
    pub fn stop(self) {
        let Self { stop, thread } = self;
        drop(stop);
        if thread.join().is_err() {
            error!("the launcher's thread has panicked");
        }
    }
}

fn keep(launcher: &Launcher, events: &mpsc::Sender<LauncherEvent>, stopped: &plain::Receiver<()>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        let why = match one_life(launcher, events, stopped) {
            Ok(why) | Err(why) => why,
        };
        if asked(stopped) || events.blocking_send(LauncherEvent::Down(why)).is_err() {
            return;
        }
        if started.elapsed() > WELL_AFTER {
            pause = FIRST_PAUSE;
        }
        if stopped.recv_timeout(pause) != Err(plain::RecvTimeoutError::Timeout) {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn asked(stopped: &plain::Receiver<()>) -> bool {
    stopped.try_recv() == Err(plain::TryRecvError::Disconnected)
}

/// From start to end of one launcher. Says why it ended.
fn one_life(
    launcher: &Launcher,
    events: &mpsc::Sender<LauncherEvent>,
    stopped: &plain::Receiver<()>,
) -> Result<String, String> {
    let (channel, child) = open(launcher).map_err(|error| match launcher {
        Launcher::Child { program } => {
            format!("the launcher cannot be started from {}: {error}", program.display())
        }
        Launcher::Socket(path) => format!("no launcher at launcher.socket {}: {error}", path.display()),
    })?;
    let mut child = child.map(Process);
    let broken = |error: ChannelError| format!("the launcher's socket: {error}");
    greet(&channel)?;
    let writer = Writer::start("launcher", channel.try_clone().map_err(broken)?).map_err(broken)?;
    let socket = channel.try_clone().map_err(broken)?;
    if events.blocking_send(LauncherEvent::Up { orders: writer.queue.clone(), socket }).is_err() {
        return Err("nobody listens".into());
    }
    let why = hear(&channel, events, stopped);
    channel.shutdown();
    let status = child.as_mut().map(Process::end).unwrap_or_default();
    // The pool holds a clone of the queue until it hears of the end; the thread ends with its next write or that clone.
    drop(writer);
    Ok(format!("{why}{status}"))
}

fn open(launcher: &Launcher) -> Result<(Channel, Option<Child>), ChannelError> {
    match launcher {
        Launcher::Child { program } => {
            let (ours, theirs) = Channel::pair()?;
            // This thread lives as long as the launcher shall: the kernel ends it with us.
            let child = child::spawn(program, "launcher", &theirs.into_fd())?;
            info!(pid = child.id(), "launcher started");
            Ok((ours, Some(child)))
        }
        Launcher::Socket(path) => Ok((Channel::new(UnixStream::connect(path)?), None)),
    }
}

fn greet(channel: &Channel) -> Result<(), String> {
    let said = |error: ChannelError| format!("the launcher did not greet: {error}");
    channel.set_timeouts(Some(GREETED_WITHIN), Some(GREETED_WITHIN)).map_err(said)?;
    channel.send(&ToLauncher::Hello { version: PROTOCOL_VERSION }, &[]).map_err(said)?;
    match channel.receive::<FromLauncher>().map_err(said)?.0 {
        FromLauncher::Hello { version: PROTOCOL_VERSION, .. } => Ok(()),
        FromLauncher::Hello { version, .. } => Err(format!(
            "the launcher speaks version {version}, control {PROTOCOL_VERSION}; run both from one image"
        )),
        other => Err(format!("the launcher said {other:?} instead of a greeting")),
    }
}

/// Passes on what it says until it is gone or the end is asked for.
fn hear(channel: &Channel, events: &mpsc::Sender<LauncherEvent>, stopped: &plain::Receiver<()>) -> String {
    // A short wait between messages: `stop` is seen soon, and nothing is lost by it.
    let seen = channel.set_timeouts(Some(GREETED_WITHIN), Some(STOP_SEEN_WITHIN));
    if let Err(error) = seen {
        return error.to_string();
    }
    loop {
        match channel.receive::<FromLauncher>() {
            Ok((message, _)) => {
                if events.blocking_send(LauncherEvent::Message(message)).is_err() {
                    return "nobody listens".into();
                }
            }
            Err(ChannelError::TimedOut) if asked(stopped) => return "asked to end".into(),
            Err(ChannelError::TimedOut) => {}
            Err(error) => return format!("the launcher is gone: {error}"),
        }
    }
}

/// A launcher that is our child; never left behind.
struct Process(Child);

impl Process {
    /// Waits for its end, which the closed socket has asked for, else kills it.
    fn end(&mut self) -> String {
        let deadline = Instant::now() + ENDED_WITHIN;
        let ended = crate::launcher::child::wait_until(&mut self.0, deadline);
        if !matches!(ended, Ok(Some(_))) {
            warn!(pid = self.0.id(), "the launcher does not end; it is killed");
        }
        match ended {
            Ok(Some(status)) => format!(" ({status})"),
            Ok(None) => " (it did not end by itself)".into(),
            Err(error) => format!(" ({error})"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it is gone and waited for already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
