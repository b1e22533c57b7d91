//! Runs a thread of another process, and each that it starts, from one system call to the next, and kills the process
//! before the one that it is told. Linux only, by ptrace(2).
#![allow(unsafe_code, reason = "neither rustix nor std has ptrace; every call names what it relies on")]

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::ptr::null_mut;
use std::sync::RwLock;

use libc::{c_int, pid_t};

/// Held for writing while a process is started: until it runs its program it has copies of our descriptors, and with them
/// their locks. Whoever works with locked files holds it for reading.
pub static STARTING: RwLock<()> = RwLock::new(());

/// How a traced process ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was killed before the system call of that number.
    Killed,
    /// It came to its second mark.
    Finished(Seen),
}

/// What was seen between the marks.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// System calls.
    pub calls: usize,
    /// Threads that were started.
    pub threads: usize,
    /// Directories that were synced, in that order.
    pub synced: Vec<PathBuf>,
    /// Something got a name after the first of them.
    pub named_late: bool,
}

/// In the child: the calling thread is traced from here on by the thread that started the process.
pub fn trace_me() {
    // Changes nothing but who is told of this thread's stops; no pointer is looked at.
    let refused = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, null_mut::<u8>(), null_mut::<u8>()) } != 0;
    assert!(
        !refused,
        "ptrace is not permitted here, so no kill can be tried: {}",
        io::Error::last_os_error()
    );
    mark();
}

/// In the child: the second mark, after which nothing is counted.
pub fn mark() {
    // A traced thread that gets this signal waits for its tracer; the process does not stop.
    assert_eq!(unsafe { libc::raise(libc::SIGSTOP) }, 0);
}

/// Starts the command, which marks a part of its work, and kills it right before the `kill_before`th system call of that,
/// counted from 1. Returns when the process is gone.
pub fn run(mut command: Command, kill_before: usize) -> Outcome {
    let child = {
        let _alone = STARTING.write().unwrap();
        command.spawn().expect("this program again")
    };
    let process = child.id() as pid_t;
    let (mut seen, mut marks, mut killed) = (Seen::default(), 0, false);
    // Whether a thread's next stop at a call is the one before it.
    let mut entering: HashMap<pid_t, bool> = HashMap::new();
    // Nothing but this process and its threads is ours to wait for in this thread, so the end is when none is left.
    while let Some((thread, status)) = wait() {
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            let well = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
            assert!(
                killed || well,
                "the process ended with status {status:#x} after {marks} marks: what it says stands above; without \
                 a mark, ptrace may not be permitted here"
            );
            continue;
        }
        if killed {
            // It stopped before it could know.
            continue;
        }
        match libc::WSTOPSIG(status) {
            // A thread that was started stops once, before it does anything.
            libc::SIGSTOP if marks > 0 && !entering.contains_key(&thread) => {
                entering.insert(thread, true);
                seen.threads += 1;
            }
            libc::SIGSTOP => {
                marks += 1;
                if marks == 1 {
                    entering.insert(thread, true);
                    let options =
                        libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE;
                    request(libc::PTRACE_SETOPTIONS, thread, options as usize);
                } else {
                    request(libc::PTRACE_DETACH, thread, 0);
                    continue;
                }
            }
            stop if stop == libc::SIGTRAP | 0x80 => {
                let before = entering.get_mut(&thread).expect("a thread that is known");
                if *before && marks == 1 {
                    seen.calls += 1;
                    if seen.calls == kill_before {
                        // The call is not carried out any more: the signal comes first.
                        // It is our own child and not reaped, so the number is its.
                        assert_eq!(unsafe { libc::kill(process, libc::SIGKILL) }, 0);
                        killed = true;
                        continue;
                    }
                    seen.look(process, thread);
                }
                *before = !*before;
            }
            // It has started a thread.
            libc::SIGTRAP if status >> 16 == libc::PTRACE_EVENT_CLONE => {}
            other => panic!("the thread was stopped by signal {other}"),
        }
        request(libc::PTRACE_SYSCALL, thread, 0);
    }
    assert!(killed || marks == 2, "the process ended after {marks} marks");
    if killed { Outcome::Killed } else { Outcome::Finished(seen) }
}

impl Seen {
    /// Looks at the call that a stopped thread is about to make.
    fn look(&mut self, process: pid_t, thread: pid_t) {
        // All zero is a value of it, and the kernel writes no more than the size that it is told.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        let size = size_of_val(&info);
        // The thread is stopped and ours.
        let filled = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size, &raw mut info) };
        assert!(filled > 0, "ptrace: {}", io::Error::last_os_error());
        assert_eq!(info.op, libc::PTRACE_SYSCALL_INFO_ENTRY);
        // Of the variants this is the one that `op` says.
        let call = unsafe { info.u.entry };
        match call.nr as i64 {
            libc::SYS_fsync => {
                let file = std::fs::read_link(format!("/proc/{process}/fd/{}", call.args[0])).unwrap();
                if file.is_dir() {
                    self.synced.push(file);
                }
            }
            libc::SYS_renameat2 | libc::SYS_linkat => self.named_late |= !self.synced.is_empty(),
            _ => {}
        }
    }
}

/// The next change of a child or tracee of this very thread.
fn wait() -> Option<(pid_t, c_int)> {
    let mut status = 0;
    loop {
        // `status` outlives the call.
        let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        match io::Error::last_os_error().raw_os_error() {
            _ if thread > 0 => return Some((thread, status)),
            Some(libc::EINTR) => {}
            Some(libc::ECHILD) => return None,
            other => panic!("waitpid: {other:?}"),
        }
    }
}

fn request(what: libc::c_uint, thread: pid_t, data: usize) {
    // The thread is stopped and ours; these requests take a number as data, no pointer.
    let refused = unsafe { libc::ptrace(what, thread, null_mut::<u8>(), data as *mut u8) } != 0;
    assert!(!refused, "ptrace request {what}: {}", io::Error::last_os_error());
}
