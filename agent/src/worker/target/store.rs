//! Finishes files whose content has come: compares, sets mode and time, syncs, reads back. A fixed pool of threads, for
//! a disk takes many syncs at once in the time of one. The number of files in it is bounded by control's window.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use nixl_transfer_crds::{Algorithm, Reason};
use rustix::fs::{Advice, Mode, Timespec, Timestamps, UTIME_OMIT, fadvise, fchmod, fstat, fsync, futimens};

use super::super::content;
use super::super::failures;
use super::super::hop::{HopCommand, Seat};
use super::super::trouble::Trouble;
use super::assembly::FileFacts;
use super::reporter;
use crate::digest::Hasher;
use crate::manifest::MODE_MASK;
use crate::protocol::{Failure, StoredFile};

/// Files that are synced at once.
const THREADS: usize = 16;

/// A file with all its bytes, verified as they came.
#[derive(Debug)]
pub(super) struct FinishedFile {
    pub(super) facts: FileFacts,
    /// For messages.
    pub(super) path: String,
    pub(super) digest: Vec<u8>,
    /// The partial file, and whether what stands at the destination has the same content. None: it has, and nothing was
    /// written.
    pub(super) written: Option<(Arc<OwnedFd>, bool)>,
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
    trouble: Arc<Trouble>,
}

impl Store {
    pub(super) fn start(seat: &Seat, read_back: bool, trouble: Arc<Trouble>) -> io::Result<Self> {
        let algorithm = seat.options.algorithm;
        let shared = Arc::new(Shared { algorithm, read_back, stored: AtomicU64::new(0), trouble });
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
                        Err(failure) => return shared.trouble.fail(failure),
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
}

impl Shared {
    fn store(&self, file: &FinishedFile) -> Result<StoredFile, Failure> {
        let stored =
            |identical| StoredFile { index: file.facts.index, digest: file.digest.clone(), identical };
        let Some((partial, false)) = &file.written else {
            // The partial will be thrown away: nothing of it must reach the disk.
            return Ok(stored(true));
        };
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
            let mut hasher = Hasher::new(self.algorithm);
            content::digest(partial, &mut hasher, 0..file.facts.size, failed("reading back"), |_| Ok(()))?;
            if hasher.finish() != file.digest {
                let message = format!("{}: the disk gives back other bytes than were written", file.path);
                return Err(Failure::new(Reason::IntegrityError, message));
            }
        }
        Ok(stored(false))
    }
}
