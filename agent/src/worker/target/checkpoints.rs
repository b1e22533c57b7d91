//! Makes what was written of a large file durable while more of it comes, and tells control how far that is: so much need
//! not be sent again. A thread of its own; when the disk is slower than the network, the hop waits for it.

use std::io;
use std::sync::{Arc, mpsc};

use rustix::fs::{Advice, fadvise, fdatasync};

use super::super::failures;
use super::super::hop::Seat;
use super::super::trouble::Trouble;
use super::assembly::FileFacts;
use super::partial_file::PartialFile;
use super::ready::{OpenFile, Place};
use crate::protocol::FromWorker;

/// Bytes between two checkpoints. One may be under way and one may wait, so what is lost by the end of the process is less
/// than three of these and the ring.
const EVERY: u64 = 16 << 20;
/// Files from this size on are not kept in the page cache when they are durable: they would push everything else out of
/// it. What is smaller is wanted soon by whoever asked for it.
const LARGE: u64 = 256 << 20;

/// The way to the thread. It ends when this is dropped and its last sync is done.
pub(super) struct Checkpoints {
    jobs: mpsc::SyncSender<Job>,
}

struct Job {
    file: Arc<PartialFile>,
    facts: FileFacts,
    length: u64,
    digest: Vec<u8>,
    path: String,
}

impl Checkpoints {
    pub(super) fn start(seat: &Seat, trouble: Arc<Trouble>) -> io::Result<Self> {
        let (jobs, waiting) = mpsc::sync_channel::<Job>(1);
        let (outbox, hop) = (seat.outbox.clone(), seat.id);
        std::thread::Builder::new().name("checkpoints".into()).spawn(move || {
            for job in waiting {
                // A sync that failed once is not tried again: the kernel may have dropped the pages.
                if let Err(errno) = job.file.sync(|file| fdatasync(file)) {
                    return trouble.fail(failures::file("syncing", &job.path, job.facts.size, errno));
                }
                if job.facts.size >= LARGE {
                    // Advice only. The pages are clean now.
                    let _ = fadvise(&job.file, 0, std::num::NonZero::new(job.length), Advice::DontNeed);
                }
                let (index, length, digest) = (job.facts.index, job.length, job.digest);
                outbox.send(&FromWorker::Durable { hop, index, length, digest });
            }
        })?;
        Ok(Self { jobs })
    }

    /// The file was written up to `end`: begins a checkpoint when one is due.
    pub(super) fn written(&self, open: &mut OpenFile, facts: FileFacts, end: u64, path: impl Fn() -> String) {
        let Place::File(file) = &open.place else { return };
        // The end of a file is synced with it.
        if end - open.marked < EVERY || end == facts.size || file.memory {
            return;
        }
        open.marked = end;
        let (file, digest) = (Arc::clone(file), open.hasher.finish());
        // A thread that has ended has left its failure, which the hop is about to hear of.
        let _ = self.jobs.send(Job { file, facts, length: end, digest, path: path() });
    }
}
