//! Memory that workloads hand over: whether it is taken, and what becomes of it when they go.

use std::{collections::HashMap, os::fd::OwnedFd, sync::Arc};

use nixl_transfer_client::wire::FromAgent;
use nixl_transfer_crds::{Reason, region::Held};
use tokio::sync::oneshot;
use tracing::info;

use super::known::Known;
use crate::{
    protocol::{Failure, entry::Time},
    region::{HostMemory, Memory, Region, RegionKey, Regions},
    workload::{Holder, Refusal, Request},
};

/// Regions of workloads, by who holds each.
#[derive(Default)]
pub struct Handed(HashMap<RegionKey, Holder>);

impl Handed {
    /// Does what a connection asks for. Does I/O on the descriptor that came with it, none that waits.
    pub fn serve(&mut self, request: Request, known: &HashMap<RegionKey, Known>, regions: &Regions) {
        match request {
            Request::Offer { holder, region, memory, size, answer } => {
                let taken = self.take(&holder, region, (memory, size), known, regions);
                // Whoever asked may be gone; then `Left` follows.
                let _ = answer.send(taken);
            }
            Request::Withdraw { holder, region, answer } => {
                let key = (holder.pod.namespace.clone(), region);
                if self.is_held(&key, &holder) {
                    self.let_go(&key, known, regions, "was withdrawn by its pod");
                }
                let _ = answer.send(());
            }
            Request::Left { holder } => {
                let all = self.0.iter().filter(|(_, by)| by.connection == holder.connection);
                let keys: Vec<RegionKey> = all.map(|(key, _)| key.clone()).collect();
                for key in keys {
                    self.let_go(&key, known, regions, "is gone: its pod has closed the connection");
                }
            }
        }
    }

    /// Tells holders of regions that are no more, or have become another's.
    pub fn forget_ended(&mut self, known: &HashMap<RegionKey, Known>) {
        self.0.retain(|key, holder| {
            let is_there = known.contains_key(key);
            if !is_there {
                let (region, reason) = (key.1.clone(), Reason::RegionNotFound.as_str().to_owned());
                let message = "the MemoryRegion was deleted".to_owned();
                holder.tell(FromAgent::Ended { region, reason, message });
            }
            is_there
        });
    }

    fn is_held(&self, key: &RegionKey, by: &Holder) -> bool {
        self.0.get(key).is_some_and(|holder| holder.connection == by.connection)
    }

    fn take(
        &mut self,
        holder: &Holder,
        name: String,
        (memory, size): (OwnedFd, u64),
        known: &HashMap<RegionKey, Known>,
        regions: &Regions,
    ) -> Result<oneshot::Receiver<()>, Refusal> {
        let key = (holder.pod.namespace.clone(), name);
        let (namespace, name) = &key;
        let Some(object) = known.get(&key) else {
            let message = format!(
                "there is no MemoryRegion {name} in namespace {namespace} with this node in `spec.node.name`; apply it first"
            );
            return Err(Refusal::new(Reason::RegionNotFound.as_str(), message));
        };
        if !matches!(object.object.spec.held, Held::Workload(_)) {
            let message = format!("MemoryRegion {name} is not for workloads; make one with `workload: {{}}`");
            return Err(Refusal::new(Reason::InvalidSpec.as_str(), message));
        }
        if let Some(by) = self.0.get(&key) {
            let message = format!(
                "pod {} has handed over MemoryRegion {name} already; withdraw it there first",
                by.pod.name
            );
            return Err(Refusal::new("Taken", message));
        }
        let writes = object.object.spec.access.writes();
        let (memory, gone) =
            HostMemory::adopt(memory, size, writes).map_err(|why| Refusal::new("MemoryUnfit", why))?;
        let since = Time { seconds: jiff::Timestamp::now().as_second(), nanoseconds: 0 };
        let uid = object.uid().to_owned();
        info!(namespace, name, pod = holder.pod.name, bytes = size, "memory is handed over");
        let region = Region {
            uid,
            memory: Memory::Host(Arc::new(memory)),
            whole: true,
            since,
            holder: Some(holder.clone()),
        };
        regions.put(key.clone(), region, Failure::new(Reason::RegionNotReady, "it was handed over anew"));
        self.0.insert(key, holder.clone());
        Ok(gone)
    }

    fn let_go(&mut self, key: &RegionKey, known: &HashMap<RegionKey, Known>, regions: &Regions, what: &str) {
        self.0.remove(key);
        let (namespace, name) = key;
        info!(namespace, name, "memory of a workload {what}");
        if let Some(known) = known.get(key) {
            let why =
                Failure::new(Reason::RegionNotReady, format!("the memory of MemoryRegion {name} {what}"));
            regions.end(key, known.uid(), why);
        }
    }
}
