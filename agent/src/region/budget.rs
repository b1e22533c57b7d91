//! Memory of the node that regions of kind `agent` may take together. A region's share is given back when nobody has the
//! memory any more, which may be after the region is gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The budget; clones share it.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: u64,
    free: Mutex<u64>,
    changed: watch::Sender<()>,
}

/// What a region has taken; given back on drop.
#[derive(Debug)]
pub struct Share {
    bytes: u64,
    of: Arc<Shared>,
}

impl Shared {
    /// A number is whole whatever panicked beside it.
    fn lock(&self) -> MutexGuard<'_, u64> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(total: u64) -> Self {
        Self(Arc::new(Shared { total, free: Mutex::new(total), changed: watch::Sender::new(()) }))
    }

    /// How much there is.
    pub fn total(&self) -> u64 {
        self.0.total
    }

    /// How much is free.
    pub fn free(&self) -> u64 {
        *self.0.lock()
    }

    /// Takes so many bytes, if they are free.
    pub fn take(&self, bytes: u64) -> Option<Share> {
        let mut free = self.0.lock();
        *free = free.checked_sub(bytes)?;
        drop(free);
        self.0.changed.send_replace(());
        Some(Share { bytes, of: Arc::clone(&self.0) })
    }

    /// Tells when something was taken or given back.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *self.of.lock() += self.bytes;
        self.of.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_and_all_comes_back() {
        let budget = Budget::new(10);
        let mut changes = budget.changes();
        let first = budget.take(7).unwrap();
        assert!(budget.take(4).is_none());
        assert_eq!((budget.free(), budget.total()), (3, 10));
        changes.mark_unchanged();
        drop(first);
        assert!(changes.has_changed().unwrap(), "whoever waits for room hears of it");
        assert!(budget.take(10).is_some() && budget.take(10).is_some());
    }
}
