//! Memory that workloads hand over: whether it is taken, and what becomes of it when they go, or when its region changes.

use std::collections::{HashMap, HashSet};

use nixl_transfer_client::wire::FromAgent;
use nixl_transfer_crds::{Reason, region::Held};
use tokio::task::JoinSet;
use tracing::info;

use super::known::Known;
use crate::{
    protocol::{Failure, entry::Time},
    region::{Memory, Region, RegionKey, Regions},
    workload::{Holder, Refusal, Request},
};

/// Regions of workloads, by who holds each.
#[derive(Default)]
pub struct Handed {
    regions: HashMap<RegionKey, HandedOver>,
    /// Ends with the number of a connection when that is closed.
    open: JoinSet<u64>,
    watched: HashSet<u64>,
}

/// A region that a workload holds.
struct HandedOver {
    /// UID of the MemoryRegion.
    uid: String,
    holder: Holder,
    writable: bool,
}

impl Handed {
    /// Does what a connection asks for. Does I/O on memory that was handed over, none that waits.
    pub fn serve(&mut self, request: Request, known: &HashMap<RegionKey, Known>, regions: &Regions) {
        match request {
            Request::Offer { holder, region, memory, answer } => {
                let key = (holder.pod.namespace.clone(), region);
                let taken = self.take(&key, &holder, memory, known, regions);
                if let Err(Ok(())) = answer.send(taken) {
                    self.let_go(&key, regions, "is given back: its pod did not wait");
                }
            }
            Request::Ask { holder, region, answer } => {
                let key = (holder.pod.namespace.clone(), region);
                // If nobody waits any more, nobody hears it.
                let _ = answer.send(self.free(&key, known).map(drop));
            }
            Request::Withdraw { holder, region, answer } => {
                let key = (holder.pod.namespace.clone(), region);
                if self.is_held(&key, holder.connection) {
                    self.let_go(&key, regions, "was withdrawn by its pod");
                }
                // If nobody waits any more, it is withdrawn all the same.
                let _ = answer.send(());
            }
        }
    }

    /// The next connection that is closed; `None` when nobody holds anything.
    pub async fn closed(&mut self) -> Option<u64> {
        // Such a task does nothing that could fail.
        self.open.join_next().await?.ok()
    }

    /// A connection is closed: nothing of it is held any more.
    pub fn let_go_of(&mut self, connection: u64, regions: &Regions) {
        self.watched.remove(&connection);
        let all = self.regions.iter().filter(|(_, by)| by.holder.connection == connection);
        let keys: Vec<RegionKey> = all.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.let_go(&key, regions, "is gone: its pod has closed the connection");
        }
    }

    /// Gives back what is no region any more, is another one of that name, or shall be written and cannot; tells the holder.
    pub fn give_back_unfit(&mut self, known: &HashMap<RegionKey, Known>, regions: &Regions) {
        self.regions.retain(|key, handed| {
            let known = known.get(key).filter(|known| known.uid() == handed.uid);
            let why = match known {
                None => Failure::new(Reason::RegionNotFound, format!("MemoryRegion {} was deleted", key.1)),
                Some(known) => match check_access(known, handed.writable) {
                    Err(why) => Failure::new(Reason::RegionNotReady, why),
                    Ok(()) => return true,
                },
            };
            let (reason, message) = (why.reason.as_str().to_owned(), why.message.clone());
            handed.holder.tell(FromAgent::Ended { region: key.1.clone(), reason, message });
            regions.end(key, &handed.uid, why);
            false
        });
    }

    fn is_held(&self, key: &RegionKey, connection: u64) -> bool {
        self.regions.get(key).is_some_and(|by| by.holder.connection == connection)
    }

    /// The region, if it is one for workloads that nobody holds.
    fn free<'a>(&self, key: &RegionKey, known: &'a HashMap<RegionKey, Known>) -> Result<&'a Known, Refusal> {
        let (namespace, name) = key;
        let Some(known) = known.get(key) else {
            let message = format!(
                "there is no MemoryRegion {name} in namespace {namespace} with this node in `spec.node.name`; apply it first"
            );
            return Err(Refusal::new(Reason::RegionNotFound.as_str(), message));
        };
        if !matches!(known.object.spec.held, Held::Workload(_)) {
            let message = format!("MemoryRegion {name} is not for workloads; make one with `workload: {{}}`");
            return Err(Refusal::new(Reason::InvalidSpec.as_str(), message));
        }
        if let Some(by) = self.regions.get(key) {
            let message = format!(
                "pod {} has handed over MemoryRegion {name} already; withdraw it there first",
                by.holder.pod.name
            );
            return Err(Refusal::new("Taken", message));
        }
        Ok(known)
    }

    fn take(
        &mut self,
        key: &RegionKey,
        holder: &Holder,
        memory: Memory,
        known: &HashMap<RegionKey, Known>,
        regions: &Regions,
    ) -> Result<(), Refusal> {
        let known = self.free(key, known)?;
        let (namespace, name) = key;
        check_access(known, memory.is_writable()).map_err(|why| Refusal::new("MemoryUnfit", why))?;
        info!(namespace, name, pod = holder.pod.name, bytes = memory.bytes(), "memory is handed over");
        if self.watched.insert(holder.connection) {
            let (gone, connection) = (holder.gone(), holder.connection);
            self.open.spawn(async move {
                gone.await;
                connection
            });
        }
        let (uid, writable) = (known.uid().to_owned(), memory.is_writable());
        let handed = HandedOver { uid: uid.clone(), holder: holder.clone(), writable };
        let region = Region { uid, memory, whole: true, since: Time::now(), holder: Some(holder.clone()) };
        regions.put(key.clone(), region, Failure::new(Reason::RegionNotReady, "it was handed over anew"));
        self.regions.insert(key.clone(), handed);
        Ok(())
    }

    fn let_go(&mut self, key: &RegionKey, regions: &Regions, what: &str) {
        let Some(handed) = self.regions.remove(key) else { return };
        let (namespace, name) = key;
        info!(namespace, name, "memory of a workload {what}");
        let why = format!("the memory of MemoryRegion {name} {what}");
        regions.end(key, &handed.uid, Failure::new(Reason::RegionNotReady, why));
    }
}

/// Whether jobs can do with the memory what the region allows them to.
fn check_access(known: &Known, writable: bool) -> Result<(), String> {
    if known.object.spec.access.writes() && !writable {
        return Err("the memory is sealed against writing or cannot be opened for it, and the region's \
                    `spec.access` is not Readable; use another seal, or make the region Readable"
            .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
