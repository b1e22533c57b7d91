//! What this agent holds, by region: the memory, its content, and who uses it. One writer, or any number of readers. What a
//! writer has not finished is no content. Users hear when the region is taken away.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nixl_transfer_crds::{Reason, task::TaskMemory};
use tokio::sync::watch;

use super::{Memory, Reading, RegionKey, Writing, usage::User};
use crate::{
    protocol::{Failure, entry::Time},
    workload::{Holder, Pod},
};

/// The table; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Regions(Arc<Table>);

#[derive(Debug)]
pub(super) struct Table {
    entries: Mutex<HashMap<RegionKey, Entry>>,
    pub(super) changed: watch::Sender<()>,
}

impl Default for Table {
    fn default() -> Self {
        Self { entries: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

/// A region that can be used.
#[derive(Debug)]
pub struct Region {
    /// UID of the MemoryRegion.
    pub uid: String,
    /// Its memory.
    pub memory: Memory,
    /// Whether what it contains is somebody else's to say: then all of it is content at any time.
    pub whole: bool,
    /// Since when it is there.
    pub since: Time,
    /// The connection that has handed it over; none when the agent holds it by itself.
    pub holder: Option<Holder>,
}

/// What a transfer has put into a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Bytes from its start.
    pub bytes: u64,
    /// Their digest, with the algorithm.
    pub digest: String,
    /// Name of the job.
    pub job: String,
    /// When they were complete.
    pub time: jiff::Timestamp,
}

/// What a status says of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// UID of the MemoryRegion.
    pub uid: String,
    /// Length of the memory.
    pub bytes: u64,
    /// Where it is.
    pub device: String,
    /// Which offer of a workload it is, if it is one.
    pub offer: Option<String>,
    /// What a transfer has put there.
    pub content: Option<Content>,
    /// The pod that has handed it over.
    pub pod: Option<Pod>,
}

#[derive(Debug)]
pub(super) struct Entry {
    region: Region,
    pub(super) content: Option<Content>,
    pub(super) readers: usize,
    pub(super) writing: bool,
    /// Whether nobody may use it any more but those who do.
    retired: bool,
    /// Why it is taken away, when it is.
    pub(super) ended: watch::Sender<Option<Failure>>,
}

impl Table {
    /// Every change leaves the table whole, so a panic elsewhere does no harm.
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<RegionKey, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Regions {
    /// Puts a region there. One that stood at its place is taken away for `instead`.
    pub fn put(&self, key: RegionKey, region: Region, instead: Failure) {
        let ended = watch::Sender::new(None);
        let entry = Entry { region, content: None, readers: 0, writing: false, retired: false, ended };
        let before = self.0.lock().insert(key, entry);
        if let Some(before) = before {
            before.ended.send_replace(Some(instead));
        }
        self.0.changed.send_replace(());
    }

    /// Takes a region away: its users hear why. Its memory is freed when they are gone.
    pub fn end(&self, key: &RegionKey, uid: &str, why: Failure) {
        let mut entries = self.0.lock();
        if entries.get(key).is_some_and(|entry| entry.region.uid == uid)
            && let Some(entry) = entries.remove(key)
        {
            drop(entries);
            entry.ended.send_replace(Some(why));
            self.0.changed.send_replace(());
        }
    }

    /// From now on nobody else may use the region; when nobody does it is taken away.
    pub fn retire(&self, key: &RegionKey, uid: &str) {
        let mut entries = self.0.lock();
        let Some(entry) = entries.get_mut(key).filter(|entry| entry.region.uid == uid) else { return };
        if entry.writing || entry.readers > 0 {
            entry.retired = true;
        } else {
            entries.remove(key);
        }
    }

    /// Whether it is memory that a workload exposes by itself.
    pub fn is_external(&self, namespace: &str, memory: &TaskMemory) -> bool {
        let key = (namespace.to_owned(), memory.name.clone());
        self.0.lock().get(&key).is_some_and(|entry| entry.region.memory.offer().is_some())
    }

    /// The GPU that has its memory, by UUID, if one has.
    pub fn gpu(&self, namespace: &str, memory: &TaskMemory) -> Option<String> {
        let key = (namespace.to_owned(), memory.name.clone());
        self.0.lock().get(&key)?.region.memory.gpu().map(|gpu| gpu.gpu().to_owned())
    }

    /// What is known of a region.
    pub fn shown(&self, key: &RegionKey) -> Option<Shown> {
        let entries = self.0.lock();
        let Entry { region, content, .. } = entries.get(key)?;
        let pod = region.holder.as_ref().map(|holder| holder.pod.clone());
        Some(Shown {
            uid: region.uid.clone(),
            bytes: region.memory.bytes(),
            device: region.memory.device().to_owned(),
            offer: region.memory.offer().map(|offer| offer.id.clone()),
            content: content.clone(),
            pod,
        })
    }

    /// Tells when anything has changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// The right to read; `None` while somebody writes.
    ///
    /// # Errors
    /// `RegionNotFound` when it is not there, `RegionNotReady` when nothing is in it.
    pub fn try_read(
        &self,
        namespace: &str,
        memory: &TaskMemory,
        job: &str,
    ) -> Result<Option<Reading>, Failure> {
        let key = (namespace.to_owned(), memory.name.clone());
        let mut entries = self.0.lock();
        let entry = find(&mut entries, &key, memory)?;
        let held = &entry.region.memory;
        offers(memory, held, true)?;
        // What serves one transfer has one reader.
        if entry.writing || (held.offer().is_some() && entry.readers > 0) {
            return Ok(None);
        }
        let bytes = match &entry.content {
            _ if entry.region.whole => held.bytes(),
            Some(content) => content.bytes,
            None => {
                let what = format!("MemoryRegion {} holds nothing", memory.name);
                return Err(Failure::new(
                    Reason::RegionNotReady,
                    format!(
                        "{what}: move something into it first, or again if the agent was restarted since"
                    ),
                ));
            }
        };
        entry.readers += 1;
        let (memory, since) = (held.clone(), entry.region.since);
        let user = self.user(entry, key, job, false);
        Ok(Some(Reading::new(memory, bytes, since, user)))
    }

    /// The right to read, as soon as nobody writes.
    ///
    /// # Errors
    /// As [`Regions::try_read`], and `RegionNotReady` when somebody still writes after `within`.
    pub async fn read(
        &self,
        namespace: &str,
        memory: &TaskMemory,
        job: &str,
        within: Duration,
    ) -> Result<Reading, Failure> {
        // Subscribed before the first try, so that nothing is missed between a try and a wait.
        let mut changed = self.changes();
        let reading = async {
            loop {
                if let Some(reading) = self.try_read(namespace, memory, job)? {
                    return Ok(reading);
                }
                if changed.changed().await.is_err() {
                    return Err(Failure::new(Reason::AgentRestarted, "the agent is ending"));
                }
            }
        };
        tokio::time::timeout(within, reading).await.unwrap_or_else(|_| {
            let message = format!(
                "another transfer has been writing into MemoryRegion {} for {} s; wait for it",
                memory.name,
                within.as_secs()
            );
            Err(Failure::new(Reason::RegionNotReady, message))
        })
    }

    /// The right to write; `None` while somebody else reads or writes. From now on nothing in it is content.
    ///
    /// # Errors
    /// `RegionNotFound` when it is not there.
    pub fn try_write(
        &self,
        namespace: &str,
        memory: &TaskMemory,
        job: &str,
    ) -> Result<Option<Writing>, Failure> {
        let key = (namespace.to_owned(), memory.name.clone());
        let mut entries = self.0.lock();
        let entry = find(&mut entries, &key, memory)?;
        offers(memory, &entry.region.memory, false)?;
        if entry.writing || entry.readers > 0 {
            return Ok(None);
        }
        entry.writing = true;
        entry.content = None;
        let user = self.user(entry, key, job, true);
        let memory = entry.region.memory.clone();
        drop(entries);
        self.0.changed.send_replace(());
        Ok(Some(Writing::new(memory, user)))
    }
}

impl Regions {
    /// Somebody uses the region from now on.
    fn user(&self, entry: &Entry, key: RegionKey, job: &str, writes: bool) -> Box<User> {
        let Entry { region, ended, .. } = entry;
        Box::new(User {
            table: Arc::clone(&self.0),
            key,
            uid: region.uid.clone(),
            job: job.to_owned(),
            writes,
            outcome: Mutex::default(),
            holder: region.holder.clone(),
            ended: ended.subscribe(),
        })
    }
}

fn find<'a>(
    entries: &'a mut HashMap<RegionKey, Entry>,
    key: &RegionKey,
    memory: &TaskMemory,
) -> Result<&'a mut Entry, Failure> {
    if entries.get(key).is_some_and(|entry| entry.retired) {
        let message = format!("MemoryRegion {} has served its one transfer", memory.name);
        return Err(Failure::new(Reason::RegionNotReady, message));
    }
    entries.get_mut(key).filter(|entry| entry.region.uid == memory.uid).ok_or_else(|| {
        let message = format!(
            "MemoryRegion {} is not on this node any more, or is another one of that name",
            memory.name
        );
        Failure::new(Reason::RegionNotFound, message)
    })
}

/// Refuses to read what a workload offers to be written, and the other way round.
fn offers(memory: &TaskMemory, held: &Memory, to_read: bool) -> Result<(), Failure> {
    match held.offer() {
        Some(offer) if offer.is_read != to_read => {
            let (is, shall) = if offer.is_read { ("Readable", "written") } else { ("Writable", "read") };
            let message = format!(
                "the workload exposes MemoryRegion {} by a {is}Operation, and it shall be {shall}; have it make the other one",
                memory.name
            );
            Err(Failure::new(Reason::RegionNotReady, message))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
