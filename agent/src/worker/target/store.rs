//! Finishes files whose content has come: compares, sets mode and time, syncs, reads back. A fixed pool of threads, for
//! a disk takes many syncs at once in the time of one. The number of files in it is bounded by control's window.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use nixl_transfer_crds::{Algorithm, Reason};
use rustix::fs::{Advice, Mode, Timespec, Timestamps, UTIME_OMIT, fadvise, fchmod, fstat, fsync, futimens};

use super::super::content;
use super::super::failures;
use super::super::hop::{HopCommand, Seat};
use super::super::trouble::Trouble;
use super::assembly::FileFacts;
use super::partial_file::PartialFile;
use super::queue::Queue;
use super::reporter;
use crate::digest::Hasher;
use crate::manifest::MODE_MASK;
use crate::protocol::{Failure, StoredFile};

/// Files that are synced at once.
const THREADS: usize = 16;
/// So many are handed over without waiting for the end of their chunk.
const MOST_HELD: usize = 64;

/// A file with all its bytes, verified as they came.
#[derive(Debug)]
pub(super) struct FinishedFile {
    pub(super) facts: FileFacts,
    /// For messages.
    pub(super) path: String,
    pub(super) digest: Vec<u8>,
    /// The partial file, and whether what stands at the destination has the same content. None: it has, and nothing was
    /// written.
    pub(super) written: Option<(Arc<PartialFile>, bool)>,
}

/// The pool's handle. Its threads end when no file is left after [`Store::no_more`], or with the process.
pub(super) struct Store {
    /// Files that are finished and not handed over yet.
    held: Vec<FinishedFile>,
    shared: Arc<Shared>,
}

struct Shared {
    algorithm: Algorithm,
    read_back: bool,
    queue: Queue<FinishedFile>,
    /// Files that were handed over and are not on their way to the reporter yet.
    at_work: AtomicUsize,
    stored: AtomicU64,
    trouble: Arc<Trouble>,
}

impl Store {
    pub(super) fn start(seat: &Seat, read_back: bool, trouble: Arc<Trouble>) -> io::Result<Self> {
        let algorithm = seat.options.algorithm;
        let shared = Arc::new(Shared {
            algorithm,
            read_back,
            queue: Queue::new(THREADS),
            at_work: AtomicUsize::new(0),
            stored: AtomicU64::new(0),
            trouble,
        });
        let (done, finished) = mpsc::channel();
        for number in 0..THREADS {
            let (done, shared) = (done.clone(), Arc::clone(&shared));
            std::thread::Builder::new()
                .name(format!("store-{number}"))
                .spawn(move || shared.store_all(&done))?;
        }
        drop(done);
        let (outbox, id, hop) = (seat.outbox.clone(), seat.id, seat.own_sender());
        let all = Arc::clone(&shared);
        std::thread::Builder::new().name("reporter".into()).spawn(move || {
            let all_came = || all.at_work.load(Ordering::Acquire) == 0;
            reporter::run(&finished, all_came, |files| {
                outbox.send(&crate::protocol::FromWorker::Stored { hop: id, files })
            });
            // The hop may have ended with a failure, and then nobody asks.
            let _ = hop.send(HopCommand::Drained);
        })?;
        Ok(Self { held: Vec::new(), shared })
    }

    /// Takes a file to finish. It is handed over with those of its chunk.
    pub(super) fn finish(&mut self, file: FinishedFile) {
        self.held.push(file);
        if self.held.len() >= MOST_HELD {
            self.hand_over();
        }
    }

    /// Hands over what is held. To be done before anything is waited for that may come only when these are stored.
    pub(super) fn hand_over(&mut self) {
        if !self.held.is_empty() {
            self.shared.at_work.fetch_add(self.held.len(), Ordering::Relaxed);
            self.shared.queue.put(self.held.drain(..));
        }
    }

    /// No further file comes: when all are reported the hop hears `Drained`.
    pub(super) fn no_more(&mut self) {
        self.hand_over();
        self.shared.queue.close();
    }

    /// Files that are finished.
    pub(super) fn stored(&self) -> u64 {
        self.shared.stored.load(Ordering::Relaxed)
    }
}

impl Drop for Store {
    /// A hop that has failed takes nothing more.
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

impl Shared {
    /// The body of a thread.
    fn store_all(&self, done: &mpsc::Sender<Vec<StoredFile>>) {
        while let Some(files) = self.queue.take() {
            let mut all_stored = Vec::with_capacity(files.len());
            for file in &files {
                match self.store(file) {
                    Ok(stored) => {
                        self.stored.fetch_add(1, Ordering::Relaxed);
                        all_stored.push(stored);
                    }
                    Err(failure) => return self.trouble.fail(failure),
                }
            }
            let told = done.send(all_stored);
            // After that: who sees that nothing is at work finds it in the channel.
            self.at_work.fetch_sub(files.len(), Ordering::Release);
            if told.is_err() {
                return;
            }
        }
    }

    fn store(&self, file: &FinishedFile) -> Result<StoredFile, Failure> {
        let stored =
            |identical| StoredFile { index: file.facts.index, digest: file.digest.clone(), identical };
        let Some((partial, false)) = &file.written else {
            // The partial will be thrown away: nothing of it must reach the disk.
            return Ok(stored(true));
        };
        if !partial.memory {
            self.to_disk(file, partial)?;
        }
        if self.read_back {
            let failed = |errno| failures::file("reading back", &file.path, file.facts.size, errno);
            let mut hasher = Hasher::new(self.algorithm);
            content::digest(partial, &mut hasher, 0..file.facts.size, failed, |_| Ok(()))?;
            if hasher.finish() != file.digest {
                let what = if partial.memory { "memory" } else { "disk" };
                let message = format!("{}: the {what} gives back other bytes than were written", file.path);
                return Err(Failure::new(Reason::IntegrityError, message));
            }
        }
        Ok(stored(false))
    }

    /// Brings a file to the disk, with its mode and time.
    fn to_disk(&self, file: &FinishedFile, partial: &PartialFile) -> Result<(), Failure> {
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
        partial.sync(|file| fsync(file)).map_err(failed("syncing"))?;
        if self.read_back {
            // Only pages that are clean are dropped, which all are now.
            fadvise(partial, 0, None, Advice::DontNeed).map_err(failed("dropping the cache of"))?;
        }
        Ok(())
    }
}
