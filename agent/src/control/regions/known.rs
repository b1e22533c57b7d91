//! One MemoryRegion as the agent knows it, and what is done to hold its memory.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nixl_transfer_crds::{
    MemoryRegion, Quantity, Reason,
    region::{AgentMemory, Held},
};
use tokio::{task::JoinSet, time::Instant};
use tracing::info;

use crate::{
    control::gpus::Gpus,
    devices::Gpu,
    protocol::{Failure, entry::Time},
    region::{
        Budgets, GpuMemory, HostMemory, Memory, Offer, Region, RegionKey, Regions, device::GRANULARITY,
    },
};

/// After an allocation that failed; each one more that follows doubles it. A driver that hangs costs a worker each time.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// Host memory, as a region's device.
const HOST: &str = "cpu";
/// A GPU, before its index.
const GPU: &str = "cuda:";

/// A region, and what is under way for it.
pub struct Known {
    /// The object, with the status that was written last.
    pub object: MemoryRegion,
    trouble: Option<Failure>,
    /// When the next allocation may be tried, after one that failed.
    again_at: Option<Instant>,
    /// Allocations that have failed one after the other.
    failures: u32,
    /// The offer of a workload that has served its transfer.
    consumed: Option<String>,
    /// Text and digest of the offer that was looked at last.
    looked_at: Option<(String, Option<String>)>,
    /// Ends the allocation under way, if there is one.
    allocating: Option<Arc<AtomicBool>>,
}

/// An allocation that is over.
pub struct Allocated {
    key: RegionKey,
    uid: String,
    /// Which allocation it is.
    given_up: Arc<AtomicBool>,
    result: Result<Memory, Failure>,
}

/// Namespace and name.
pub fn key(object: &MemoryRegion) -> RegionKey {
    let metadata = &object.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

impl Known {
    /// Takes in a region as it is now.
    pub fn see(all: &mut HashMap<RegionKey, Known>, regions: &Regions, object: MemoryRegion) {
        let key = key(&object);
        if all.get(&key).is_some_and(|known| Some(known.uid()) != object.metadata.uid.as_deref()) {
            Self::forget(all, regions, &key);
        }
        // An earlier start of the agent may have written it.
        let consumed = object.status.as_ref().and_then(|status| status.consumed.clone());
        match all.get_mut(&key) {
            Some(known) => {
                known.consumed = known.consumed.take().or(consumed);
                known.object = object;
            }
            None => {
                let (trouble, allocating, looked_at) = (None, None, None);
                all.insert(
                    key,
                    Self { object, trouble, again_at: None, failures: 0, consumed, looked_at, allocating },
                );
            }
        }
    }

    /// The region was deleted.
    pub fn forget(all: &mut HashMap<RegionKey, Known>, regions: &Regions, key: &RegionKey) {
        if let Some(known) = all.remove(key) {
            known.give_up();
            let (namespace, name) = key;
            info!(namespace, name, "MemoryRegion is gone; its memory is freed");
            let why = Failure::new(Reason::RegionNotFound, format!("MemoryRegion {name} was deleted"));
            regions.end(key, known.uid(), why);
        }
    }

    /// UID of the object.
    pub fn uid(&self) -> &str {
        self.object.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Why it cannot be held.
    pub fn trouble(&self) -> Option<&Failure> {
        self.trouble.as_ref()
    }

    /// Ends an allocation under way.
    pub fn give_up(&self) {
        if let Some(given_up) = &self.allocating {
            given_up.store(true, Ordering::Relaxed);
        }
    }

    /// When the next allocation may be tried, if one has failed.
    pub fn again_at(&self) -> Option<Instant> {
        self.again_at
    }

    /// Begins what is needed to hold the region as it shall be.
    pub fn hold(
        &mut self,
        key: &RegionKey,
        regions: &Regions,
        (budgets, gpus): (&Budgets, &Gpus),
        allocations: &mut JoinSet<Allocated>,
    ) {
        let memory = match &self.object.spec.held {
            Held::Agent(memory) => memory,
            Held::Workload(_) => return,
            Held::External(external) => {
                let digest = external.digest.clone();
                return self.look_at_offer(key, regions, digest);
            }
        };
        let bytes = match memory.size.bytes() {
            Ok(bytes) => bytes,
            Err(error) => {
                // A change of it frees what was there, also a change to what cannot be.
                let failure = Failure::new(Reason::InvalidSpec, format!("spec.agent.size: {error}"));
                self.give_up();
                regions.end(key, self.uid(), failure.clone());
                (self.trouble, self.again_at) = (Some(failure), None);
                return;
            }
        };
        let shown = regions.shown(key);
        if shown.as_ref().is_some_and(|shown| shown.bytes == bytes && shown.device == memory.device) {
            (self.trouble, self.again_at, self.failures) = (None, None, 0);
            return;
        }
        if let Some(shown) = shown {
            let (size, device) = (Quantity::from_bytes(bytes), &memory.device);
            let message = format!(
                "MemoryRegion {} was given another size or device, {size} of {device}, which frees what was there",
                key.1
            );
            regions.end(key, &shown.uid, Failure::new(Reason::RegionNotReady, message));
        }
        // One whose thread is gone without a word has nobody else who knows of it.
        self.allocating = self.allocating.take().filter(|given_up| Arc::strong_count(given_up) > 1);
        // Of another size perhaps; then it is given up when it comes.
        if self.allocating.is_some() || self.again_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        // From here on something else wakes us: an allocation's end, room, or a GPU that is seen.
        self.again_at = None;
        // Only now: what is held stays, also when NVML does not know the GPU for a while.
        let gpu = match place(memory, gpus) {
            Ok(gpu) => gpu,
            Err(failure) => {
                self.trouble = Some(failure);
                return;
            }
        };
        let (budget, takes) = match &gpu {
            None => (budgets.host().clone(), bytes),
            Some(gpu) => (budgets.gpu(&gpu.uuid), bytes.next_multiple_of(GRANULARITY)),
        };
        let Some(share) = budget.take(takes) else {
            let (size, free, total) =
                (&memory.size, Quantity::from_bytes(budget.free()), Quantity::from_bytes(budget.total()));
            let (of, key) = gpu.map_or_else(
                || ("the host".to_owned(), "memory.host"),
                |gpu| (format!("GPU {}", gpu.uuid), "memory.gpu"),
            );
            let message = format!(
                "spec.agent.size is {size}, and of the {total} that regions may take of {of} on this node {free} are free: \
                 delete a region, or raise `{key}` in the agent's configuration"
            );
            self.trouble = Some(Failure::new(Reason::RegionNotReady, message));
            // Its turn comes when something is given back.
            return;
        };
        let given_up = Arc::new(AtomicBool::new(false));
        self.allocating = Some(Arc::clone(&given_up));
        let (key, uid) = (key.clone(), self.uid().to_owned());
        match gpu {
            None => allocations.spawn_blocking(move || {
                let result = HostMemory::allocate(bytes, share, &given_up);
                let result = result.map(|memory| Memory::Host(Arc::new(memory)));
                Allocated { key, uid, given_up, result }
            }),
            Some(gpu) => {
                let (gpus, device) = (gpus.clone(), memory.device.clone());
                allocations.spawn(async move {
                    let allocated = gpus.allocate(gpu.uuid.clone(), bytes).await;
                    let result = allocated.map(|descriptor| {
                        let memory = GpuMemory::allocated(gpu.uuid, device, bytes, descriptor, share);
                        Memory::Gpu(Arc::new(memory))
                    });
                    Allocated { key, uid, given_up, result }
                })
            }
        };
    }
}

impl Known {
    /// The offer that has served its transfer.
    pub fn consumed(&self) -> Option<&String> {
        self.consumed.as_ref()
    }

    /// The offer has served: its workload is about to be told.
    pub fn consume(&mut self, offer: &str) {
        self.consumed = Some(offer.to_owned());
    }

    /// Takes what the workload has written, if it is new.
    fn look_at_offer(&mut self, key: &RegionKey, regions: &Regions, digest: Option<String>) {
        let name = &key.1;
        let withdrawn = || {
            let message = format!("the workload has changed what it offers as MemoryRegion {name}");
            Failure::new(Reason::RegionNotReady, message)
        };
        let text = self.object.status.as_ref().and_then(|status| status.rdma_metadata.as_deref());
        let Some(text) = text else {
            (self.trouble, self.looked_at) = (None, None);
            return regions.end(key, self.uid(), withdrawn());
        };
        let served = |offer: &Option<String>| offer.is_some() && *offer == self.consumed;
        if self.looked_at.as_ref().is_none_or(|(seen, with)| seen != text || *with != digest) {
            let offer = Offer::parse(text, digest.as_deref());
            self.looked_at = Some((text.to_owned(), digest));
            match offer {
                Err(failure) => {
                    regions.end(key, self.uid(), withdrawn());
                    self.trouble = Some(failure);
                }
                Ok(offer) if served(&Some(offer.id.clone())) => {
                    regions.end(key, self.uid(), withdrawn());
                    self.trouble = Some(has_served());
                }
                Ok(offer) => {
                    self.trouble = None;
                    let (uid, memory) = (self.uid().to_owned(), Memory::External(Arc::new(offer)));
                    let region = Region { uid, memory, whole: true, since: Time::now(), holder: None };
                    regions.put(key.clone(), region, withdrawn());
                }
            }
        } else if regions.shown(key).is_some_and(|shown| served(&shown.offer)) {
            // Who uses it now is about to tell the workload.
            regions.retire(key, self.uid());
            self.trouble = Some(has_served());
        }
    }
}

fn has_served() -> Failure {
    let message = "what stands in status.rdmaMetadata has served its one transfer; for another one the workload makes another \
                   operation and writes its metadata there";
    Failure::new(Reason::RegionNotReady, message)
}

/// An allocation is over: the region is there, unless it is wanted no more.
pub fn allocated(regions: &Regions, all: &mut HashMap<RegionKey, Known>, allocated: Allocated) {
    let Allocated { key, uid, given_up, result } = allocated;
    let Some(known) = all.get_mut(&key).filter(|known| known.uid() == uid) else { return };
    if known.allocating.as_ref().is_none_or(|own| !Arc::ptr_eq(own, &given_up)) {
        return;
    }
    known.allocating = None;
    match result {
        // One of another size than is wanted by now is freed by the next look.
        Ok(memory) => {
            let instead = Failure::new(Reason::RegionNotReady, "the region was allocated anew");
            regions.put(key, Region { uid, memory, whole: false, since: Time::now(), holder: None }, instead);
        }
        Err(failure) => {
            known.trouble = Some(failure);
            let pause = AGAIN_AFTER.saturating_mul(1 << known.failures.min(10)).min(LONGEST_PAUSE);
            known.failures = known.failures.saturating_add(1);
            known.again_at = Some(Instant::now() + pause);
        }
    }
}

/// Which GPU shall have the memory; `None` for the host.
fn place(memory: &AgentMemory, gpus: &Gpus) -> Result<Option<Gpu>, Failure> {
    let found = match memory.device.strip_prefix(GPU) {
        Some(index) => gpus.by_index(index).map(Some),
        None if memory.device == HOST => Ok(None),
        None => {
            let message = format!("use {HOST:?} for the host or \"{GPU}N\" for a GPU");
            Err(Failure::new(Reason::NoSuchDevice, message))
        }
    };
    found.map_err(|failure| {
        Failure::new(failure.reason, format!("spec.agent.device is {:?}: {}", memory.device, failure.message))
    })
}
