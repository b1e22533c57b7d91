//! What UCX says in its log: heard through a pipe by a thread of its own. What it says of the protocols it has selected is kept,
//! to tell what really moves the bytes; all else goes into the worker's log. What UCX says before it aborts goes to stderr.
#![allow(unsafe_code)] // fflush has no safe form

mod tables;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::protocol::Used;
use tables::{OPERATION, Tables};

/// A line that is longer is no line: it is let go.
const LONGEST_LINE: usize = 8 << 10;

/// UCX' log.
#[derive(Debug)]
pub(super) struct Log {
    heard: Arc<Mutex<Heard>>,
    /// Held open, so that the thread never hears the end before this process does.
    writing: OwnedFd,
}

#[derive(Debug)]
struct Heard {
    reading: OwnedFd,
    /// The beginning of a line.
    rest: Vec<u8>,
    tables: Tables,
}

impl Log {
    /// Makes the pipe and starts the thread. It ends with the process: the worker's end of the pipe stays open.
    pub(super) fn start() -> io::Result<Self> {
        let (reading, writing) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(&reading, OFlags::NONBLOCK)?;
        let waiting = reading.try_clone()?;
        let heard = Arc::new(Mutex::new(Heard { reading, rest: Vec::new(), tables: Tables::default() }));
        let hearing = Arc::clone(&heard);
        std::thread::Builder::new().name("ucx-log".into()).spawn(move || {
            // No deadline: the kernel wakes us when there is something.
            while let Ok(_) | Err(Errno::INTR) = poll(&mut [PollFd::new(&waiting, PollFlags::IN)], None) {
                lock(&hearing).take();
            }
        })?;
        Ok(Self { heard, writing })
    }

    /// What UCX must find in its environment when its library is loaded.
    pub(super) fn variables(&self) -> [(&'static str, String); 2] {
        [
            ("UCX_LOG_FILE", format!("/proc/self/fd/{}", self.writing.as_fd().as_raw_fd())),
            // A pattern: other operations have tables too, and nobody asks for them.
            ("UCX_PROTO_INFO", format!("*{OPERATION}*")),
        ]
    }

    /// What messages of that length to other processes go over, as far as UCX has said.
    pub(super) fn used(&self, length: u64) -> Used {
        // UCX writes through a buffer, which it empties by itself only when something is wrong.
        // SAFETY: with NULL it takes no memory of ours, and it locks each stream against its writers.
        let _ = unsafe { libc::fflush(std::ptr::null_mut()) };
        let mut heard = lock(&self.heard);
        heard.take();
        heard.tables.used(length)
    }
}

fn lock(heard: &Mutex<Heard>) -> std::sync::MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heard {
    /// Takes what is there. Whoever comes first does, the thread or the one who asks.
    fn take(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(&self.reading, &mut buffer) {
                Ok(0) | Err(Errno::AGAIN) => return,
                Ok(length) => self.hear(&buffer[..length]),
                Err(Errno::INTR) => {}
                Err(error) => return tracing::warn!(%error, "UCX' log cannot be read"),
            }
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(part);
            if part.ends_with(b"\n") || self.rest.len() > LONGEST_LINE {
                let line = String::from_utf8_lossy(&self.rest);
                let line = line.trim_end();
                if !line.is_empty() && !self.tables.take(line) {
                    tracing::warn!(line, "UCX says");
                }
                self.rest.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_tables_are_read() {
        let log = Log::start().unwrap();
        let golden = include_bytes!("ucx/golden/striped.txt");
        // Pieces that end nowhere in particular.
        for piece in golden.chunks(37) {
            rustix::io::write(&log.writing, piece).unwrap();
        }
        assert_eq!(log.used(1 << 20).devices, ["lo", "eth0"]);
        assert!(lock(&log.heard).rest.is_empty());
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let log = Log::start().unwrap();
        for _ in 0..64 {
            rustix::io::write(&log.writing, &[b'x'; 4096]).unwrap();
        }
        assert_eq!(log.used(1), Used::default());
        assert!(lock(&log.heard).rest.len() <= LONGEST_LINE);
    }
}
