//! Finishes files whose content has come: compares, sets mode and time, syncs, reads back. A fixed pool of threads, for
//! a disk takes many syncs at once in the time of one. The number of files in it is bounded by control's window.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use nixl_connect::AbortHandle;
use nixl_transfer_crds::{Algorithm, Reason};
use rustix::fs::{Advice, Mode, Timespec, Timestamps, UTIME_OMIT, fadvise, fchmod, fstat, fsync, futimens};
use rustix::io::{Errno, pread};

use super::super::failures;
use super::super::hop::{HopCommand, Partial, Seat};
use super::assembly::FileFacts;
use super::reporter;
use crate::digest::Hasher;
use crate::manifest::MODE_MASK;
use crate::protocol::{Failure, StoredFile};

/// Files that are synced at once.
const THREADS: usize = 16;
/// Bytes that are read at once when content is compared or read back.
const BUFFER: usize = 256 * 1024;

/// A file with all its bytes, verified as they came.
#[derive(Debug)]
pub(super) struct FinishedFile {
    pub(super) partial: Partial,
    pub(super) facts: FileFacts,
    /// For messages.
    pub(super) path: String,
    pub(super) digest: Vec<u8>,
}

/// The pool's handle. Its threads end when no file is left after [`Store::no_more`], or with the process.
pub(super) struct Store {
    jobs: Option<mpsc::Sender<FinishedFile>>,
    shared: Arc<Shared>,
}

struct Shared {
    algorithm: Algorithm,
    read_back: bool,
    stored: AtomicU64,
    failure: Mutex<Option<Failure>>,
    /// Wakes the hop when it waits in the stream.
    stream: AbortHandle,
    /// Wakes it when it waits for control.
    hop: mpsc::Sender<HopCommand>,
}

impl Store {
    pub(super) fn start(seat: &Seat, read_back: bool, stream: AbortHandle) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            algorithm: seat.options.algorithm,
            read_back,
            stored: AtomicU64::new(0),
            failure: Mutex::new(None),
            stream,
            hop: seat.own_sender(),
        });
        let (jobs, waiting) = mpsc::channel::<FinishedFile>();
        let waiting = Arc::new(Mutex::new(waiting));
        let (done, finished) = mpsc::channel();
        for number in 0..THREADS {
            let (waiting, done, shared) = (Arc::clone(&waiting), done.clone(), Arc::clone(&shared));
            std::thread::Builder::new().name(format!("store-{number}")).spawn(move || {
                loop {
                    // Whoever holds the lock waits for the next file; the others wait for the lock.
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(file) = next else { return };
                    match shared.store(&file) {
                        Ok(stored) => {
                            shared.stored.fetch_add(1, Ordering::Relaxed);
                            if done.send(stored).is_err() {
                                return;
                            }
                        }
                        Err(failure) => return shared.fail(failure),
                    }
                }
            })?;
        }
        let (outbox, id, hop) = (seat.outbox.clone(), seat.id, seat.own_sender());
        std::thread::Builder::new().name("reporter".into()).spawn(move || {
            reporter::run(&finished, |files| {
                outbox.send(&crate::protocol::FromWorker::Stored { hop: id, files })
            });
            // The hop may have ended with a failure, and then nobody asks.
            let _ = hop.send(HopCommand::Drained);
        })?;
        Ok(Self { jobs: Some(jobs), shared })
    }

    /// Takes a file to finish.
    pub(super) fn finish(&self, file: FinishedFile) {
        if let Some(jobs) = &self.jobs
            && jobs.send(file).is_err()
        {
            // Every thread has ended, each with a failure that the hop is about to hear of.
            tracing::debug!("a file came after the store's failure");
        }
    }

    /// No further file comes: when all are reported the hop hears `Drained`.
    pub(super) fn no_more(&mut self) {
        self.jobs = None;
    }

    /// Files that are finished.
    pub(super) fn stored(&self) -> u64 {
        self.shared.stored.load(Ordering::Relaxed)
    }

    /// The first failure, if any.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn fail(&self, failure: Failure) {
        let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = Some(failure.clone());
            drop(first);
            // Both, since the hop may wait in either place; it may also be gone.
            let _ = self.hop.send(HopCommand::StoreFailed(failure));
            self.stream.abort();
        }
    }

    fn store(&self, file: &FinishedFile) -> Result<StoredFile, Failure> {
        let stored =
            |identical| StoredFile { index: file.facts.index, digest: file.digest.clone(), identical };
        if let Some(existing) = &file.partial.existing
            && self.is_identical(existing, file)
        {
            // The partial will be thrown away: nothing of it must reach the disk.
            return Ok(stored(true));
        }
        let partial = &file.partial.file;
        let failed = |doing| move |errno| failures::file(doing, &file.path, file.facts.size, errno);
        let found = fstat(partial).map_err(failed("looking at"))?.st_size;
        if u64::try_from(found) != Ok(file.facts.size) {
            let message = format!("{}: {found} bytes were written instead of {}", file.path, file.facts.size);
            return Err(Failure::new(Reason::IntegrityError, message));
        }
        fchmod(partial, Mode::from_raw_mode(file.facts.mode & MODE_MASK))
            .map_err(failed("setting the mode of"))?;
        let mtime = file.facts.mtime;
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() },
        };
        futimens(partial, &times).map_err(failed("setting the time of"))?;
        // A sync that failed once is not tried again: the kernel may have dropped the pages.
        fsync(partial).map_err(failed("syncing"))?;
        if self.read_back {
            // Only pages that are clean are dropped, which all are now.
            fadvise(partial, 0, None, Advice::DontNeed).map_err(failed("dropping the cache of"))?;
            if self.digest(partial).map_err(failed("reading back"))? != file.digest {
                let message = format!("{}: the disk gives back other bytes than were written", file.path);
                return Err(Failure::new(Reason::IntegrityError, message));
            }
        }
        Ok(stored(false))
    }

    /// Whether the file that stands at the destination has the same content. One that cannot be read is not identical,
    /// and will be replaced.
    fn is_identical(&self, existing: &OwnedFd, file: &FinishedFile) -> bool {
        let same_size = fstat(existing).is_ok_and(|stat| u64::try_from(stat.st_size) == Ok(file.facts.size));
        same_size && self.digest(existing).is_ok_and(|digest| digest == file.digest)
    }

    fn digest(&self, file: &OwnedFd) -> Result<Vec<u8>, Errno> {
        let mut hasher = Hasher::new(self.algorithm);
        let mut buffer = vec![0; BUFFER];
        let mut offset = 0;
        loop {
            match pread(file, buffer.as_mut_slice(), offset) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(length) => {
                    hasher.update(&buffer[..length]);
                    offset += length as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}
