//! Starts a process of this binary: with an empty environment, one open socket and nothing else, and bound to the life of
//! the thread that started it.
#![allow(unsafe_code)] // what must happen between fork and exec has no safe form

use std::{
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags},
};

/// The running binary, also when its file was replaced.
pub fn this_program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// Runs `program SUBCOMMAND --fd N`, where N is `socket`. The environment is empty: what NIXL and UCX read there is
/// decided by the worker's orders, and nothing of ours leaks. Output goes where our errors go. The child dies with the
/// calling *thread*, so that must be one that lives as long as the child shall.
pub fn spawn(program: &Path, subcommand: &str, socket: &OwnedFd) -> io::Result<Child> {
    let socket = socket.as_raw_fd();
    let parent = rustix::process::getpid().as_raw_pid();
    let mut command = Command::new(program);
    command
        .arg0("transfer-agent")
        .args([subcommand, "--fd", &socket.to_string()])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    // SAFETY: the closure runs between fork and exec; it makes system calls only, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || {
            die_with_parent(parent)?;
            keep_only(socket)
        });
    }
    command.spawn()
}

/// The socket whose number came on the command line.
///
/// # Errors
/// When no socket is open under that number, or it is one of the standard streams.
pub fn inherited_socket(fd: i32) -> io::Result<OwnedFd> {
    if fd <= 2 {
        return Err(io::Error::other(format!(
            "--fd {fd} is a standard stream; give the number of an open socket"
        )));
    }
    // SAFETY: the number is only looked at; the kernel refuses one that is not open.
    let flags = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    if flags < 0 {
        return Err(io::Error::other(format!(
            "--fd {fd} is not open; this process is started by its parent only"
        )));
    }
    // SAFETY: it is open, and nothing in this process owns it: it came over exec, and this is called once, first thing.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::net::sockopt::socket_domain(&owned)
        .map_err(|_| io::Error::other(format!("--fd {fd} is no socket")))?;
    Ok(owned)
}

/// The kernel kills us when the starting thread ends. If it ended before we said so, we end by ourselves.
fn die_with_parent(parent: i32) -> io::Result<()> {
    // SAFETY: plain system calls with plain numbers.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) != 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::getppid() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
    }
    Ok(())
}

/// Lets `socket` and the standard streams survive the exec, and nothing else.
fn keep_only(socket: i32) -> io::Result<()> {
    // SAFETY: plain system calls with plain numbers; marking descriptors closes none, so no owner loses its own.
    unsafe {
        // The Rust library's own descriptor for errors of exec lies in this range too and is closed on exec anyway.
        if libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) != 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::fcntl(socket, libc::F_SETFD, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Waits for a child until `deadline`; `None` when it still runs then.
pub fn wait_until(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(rustix::io::Errno::SRCH)?;
    // Not waited for yet, so the number is still this child's.
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
