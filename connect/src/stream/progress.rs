//! Counters of one stream, readable from any thread while it runs.

use std::sync::atomic::{AtomicU64, Ordering};

/// What has gone through a stream. On the receiving side a chunk counts when it was verified, on the sending side when
/// the receiver has returned its slot.
#[derive(Debug, Default)]
pub struct Progress {
    pub(super) bytes: AtomicU64,
    pub(super) chunks: AtomicU64,
    pub(super) resent: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// A [`Progress`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProgressSnapshot {
    /// Bytes of whole chunks.
    pub bytes: u64,
    /// Chunks.
    pub chunks: u64,
    /// Chunks that were sent again because they had arrived damaged.
    pub resent: u64,
    /// Notifications for this stream that came from another agent than its peer.
    pub refused: u64,
}

impl Progress {
    /// The counters now. They are read one after the other, so they may belong to slightly different moments.
    pub fn snapshot(&self) -> ProgressSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProgressSnapshot {
            bytes: read(&self.bytes),
            chunks: read(&self.chunks),
            resent: read(&self.resent),
            refused: read(&self.refused),
        }
    }

    pub(super) fn chunk(&self, length: usize) {
        self.bytes.fetch_add(length as u64, Ordering::Relaxed);
        self.chunks.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn resend(&self) {
        self.resent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}
