//! Starts child processes that die with this process. The one place of this crate that needs `unsafe`.
#![allow(unsafe_code)] // `pre_exec` is unsafe by signature; nothing safe sets a parent-death signal in the child.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

/// Whether a child outlives the process that started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// Killed by the kernel when this process ends, however it ends.
    DiesWithParent,
    /// Goes on (`demo --keep`).
    Free,
}

type Request = (Command, Tie, Sender<io::Result<Child>>);

/// Starts `command` in a process group of its own.
///
/// The parent-death signal follows the *thread* that forked, and tests run on threads that end: all children are started
/// by one thread that lives as long as the process.
pub(crate) fn spawn(command: Command, tie: Tie) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, inbox) = channel::<Request>();
        thread::spawn(move || {
            for (command, tie, answer) in inbox {
                // A caller that is gone does not read the answer; the child is then an orphan of this process only.
                let _ = answer.send(spawn_here(command, tie));
            }
        });
        requests
    });
    let (answer, result) = channel();
    let gone = || io::Error::other("the thread that starts processes has ended");
    spawner.send((command, tie, answer)).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}

fn spawn_here(mut command: Command, tie: Tie) -> io::Result<Child> {
    command.process_group(0);
    if tie == Tie::DiesWithParent {
        let parent = getpid();
        // SAFETY: the closure runs between fork and exec and makes two direct system calls; it neither allocates nor locks.
        unsafe { command.pre_exec(move || die_with(parent)) };
    }
    command.spawn()
}

fn die_with(parent: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have ended before the signal was set; nobody would send it then.
    if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}
