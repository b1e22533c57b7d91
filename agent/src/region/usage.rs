//! The rights to use a region: who reads it, who writes it, what became of it. A right that is dropped is given back, and the
//! workload whose memory it is hears how it went.

use std::{
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nixl_transfer_client::wire::FromAgent;
use nixl_transfer_crds::Reason;
use tokio::sync::watch;

use super::{
    Content, Memory, Offered, RegionKey,
    table::{Entry, Table},
};
use crate::{
    protocol::{Failure, entry::Time},
    workload::Holder,
};

/// The right to read a region; given back on drop.
#[derive(Debug)]
pub struct Reading {
    /// What is read.
    pub memory: Memory,
    /// How many bytes of it.
    pub bytes: u64,
    /// Since when they are there.
    pub since: Time,
    user: Box<User>,
}

/// The right to write a region; given back on drop, and without [`Writing::complete`] before the region is empty then.
#[derive(Debug)]
pub struct Writing {
    /// What is written.
    pub memory: Memory,
    user: Box<User>,
}

/// One who uses a region.
#[derive(Debug)]
pub(super) struct User {
    pub(super) table: Arc<Table>,
    pub(super) key: RegionKey,
    pub(super) uid: String,
    pub(super) job: String,
    pub(super) writes: bool,
    /// Bytes that were moved and their digest, when all went well.
    pub(super) outcome: Mutex<Option<(u64, String)>>,
    pub(super) holder: Option<Holder>,
    pub(super) ended: watch::Receiver<Option<Failure>>,
}

impl Reading {
    pub(super) fn new(memory: Memory, bytes: u64, since: Time, user: Box<User>) -> Self {
        Self { memory, bytes, since, user }
    }

    /// What a workload offers, where it exposes the memory by itself.
    pub fn offered(&self) -> Option<Offered<'_>> {
        self.user.offered(&self.memory)
    }

    /// Resolves when the region is taken away.
    pub fn ended(&self) -> impl Future<Output = Failure> + Send + use<> {
        ended(self.user.ended.clone())
    }

    /// Whether it is somebody else's memory, who hears when it was read.
    pub fn is_lent(&self) -> bool {
        self.user.holder.is_some() || self.memory.offer().is_some()
    }

    /// All was read: so many bytes, with this digest.
    pub fn complete(&self, bytes: u64, digest: String) {
        self.user.complete(bytes, digest);
    }
}

impl Writing {
    pub(super) fn new(memory: Memory, user: Box<User>) -> Self {
        Self { memory, user }
    }

    /// Resolves when the region is taken away.
    pub fn ended(&self) -> impl Future<Output = Failure> + Send + use<> {
        ended(self.user.ended.clone())
    }

    /// Name of the region.
    pub fn name(&self) -> &str {
        &self.user.key.1
    }

    /// What a workload offers, where it exposes the memory by itself.
    pub fn offered(&self) -> Option<Offered<'_>> {
        self.user.offered(&self.memory)
    }

    /// So many bytes with this digest were written and verified: from now on they are the region's content.
    ///
    /// # Errors
    /// Why the region was taken away.
    pub fn complete(&self, bytes: u64, digest: String) -> Result<(), Failure> {
        let User { table, key, job, ended, .. } = &*self.user;
        let mut entries = table.lock();
        if let Some(failure) = ended.borrow().clone() {
            return Err(failure);
        }
        if let Some(entry) = entries.get_mut(key).filter(|entry| self.user.uses(entry)) {
            let time = jiff::Timestamp::now();
            entry.content = Some(Content { bytes, digest: digest.clone(), job: job.clone(), time });
        }
        drop(entries);
        self.user.complete(bytes, digest);
        Ok(())
    }
}

/// Resolves when what can be taken away is; `None` cannot be.
pub async fn or_never(taken_away: Option<impl Future<Output = Failure>>) -> Failure {
    match taken_away {
        Some(taken_away) => taken_away.await,
        None => pending().await,
    }
}

async fn ended(mut ended: watch::Receiver<Option<Failure>>) -> Failure {
    match ended.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(failure)) => failure.clone(),
        // The table is gone, and with it the agent.
        _ => Failure::new(Reason::AgentRestarted, "the agent is ending"),
    }
}

impl User {
    /// Whether it is this one's. One put there since, even under the same UID, is not.
    fn uses(&self, entry: &Entry) -> bool {
        entry.ended.subscribe().same_channel(&self.ended)
    }

    fn offered<'a>(&'a self, memory: &'a Memory) -> Option<Offered<'a>> {
        Some(Offered { key: &self.key, uid: &self.uid, offer: memory.offer()? })
    }

    fn outcome(&self) -> MutexGuard<'_, Option<(u64, String)>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complete(&self, bytes: u64, digest: String) {
        *self.outcome() = Some((bytes, digest));
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Some(holder) = &self.holder {
            let (bytes, digest) = self.outcome().take().unzip();
            let (region, job) = (self.key.1.clone(), self.job.clone());
            let (wrote, succeeded) = (self.writes, bytes.is_some());
            holder.tell(FromAgent::Finished { region, job, wrote, succeeded, bytes, digest });
        }
        let mut entries = self.table.lock();
        if let Some(entry) = entries.get_mut(&self.key).filter(|entry| self.uses(entry)) {
            match self.writes {
                true => entry.writing = false,
                false => entry.readers = entry.readers.saturating_sub(1),
            }
        }
        drop(entries);
        self.table.changed.send_replace(());
    }
}
