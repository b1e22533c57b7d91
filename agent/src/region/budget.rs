//! Memory of the node that regions of kind `agent` may take together, of the host and of each GPU. A region's share is given
//! back when nobody has the memory any more, which may be after the region is gone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

/// All budgets of the node; clones share them.
#[derive(Clone, Debug)]
pub struct Budgets {
    host: Budget,
    each_gpu: u64,
    gpus: Arc<Mutex<BTreeMap<String, Budget>>>,
    changed: watch::Sender<()>,
}

impl Budgets {
    /// So many bytes of the host, and of each GPU.
    pub fn new(host: u64, each_gpu: u64) -> Self {
        let changed = watch::Sender::new(());
        let host = Budget::telling(host, changed.clone());
        Self { host, each_gpu, gpus: Arc::default(), changed }
    }

    /// That of the host.
    pub fn host(&self) -> &Budget {
        &self.host
    }

    /// That of the GPU with this UUID.
    pub fn gpu(&self, uuid: &str) -> Budget {
        let mut gpus = self.gpus.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Budget::telling(self.each_gpu, self.changed.clone());
        gpus.entry(uuid.to_owned()).or_insert_with(new).clone()
    }

    /// Tells when something was taken or given back.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// A budget; clones share it.
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
        Self::telling(total, watch::Sender::new(()))
    }

    /// One that tells its changes here.
    fn telling(total: u64, changed: watch::Sender<()>) -> Self {
        Self(Arc::new(Shared { total, free: Mutex::new(total), changed }))
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
        let budgets = Budgets::new(10, 4);
        let budget = budgets.host();
        let mut changes = budgets.changes();
        let first = budget.take(7).unwrap();
        assert!(budget.take(4).is_none());
        assert_eq!((budget.free(), budget.total()), (3, 10));
        changes.mark_unchanged();
        drop(first);
        assert!(changes.has_changed().unwrap(), "whoever waits for room hears of it");
        assert!(budget.take(10).is_some() && budget.take(10).is_some());
    }

    #[test]
    fn each_gpu_has_a_budget_of_its_own() {
        let budgets = Budgets::new(10, 4);
        let mut changes = budgets.changes();
        let first = budgets.gpu("a").take(4).unwrap();
        assert!(changes.has_changed().unwrap());
        assert!(budgets.gpu("a").take(1).is_none(), "the same one, however often it is asked for");
        assert_eq!((budgets.gpu("b").free(), budgets.host().free()), (4, 10));
        changes.mark_unchanged();
        drop(first);
        assert!(changes.has_changed().unwrap());
        assert_eq!(budgets.gpu("a").free(), 4);
    }
}
