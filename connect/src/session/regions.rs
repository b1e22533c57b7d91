//! Registered memory: kept until nobody needs it, and never dropped while a transfer may still use it. The same range is
//! registered once, however many need it. Calls NIXL.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nixl_sys::{Agent, MemType, MemoryRegion, NixlDescriptor, RegistrationHandle};

use super::SessionError;
use super::command::RegionId;
use crate::device::Device;
use crate::metadata::SerializedDescriptor;

/// Memory that stays where it is for as long as this value lives.
pub(crate) trait Backing: Send + Sync {
    /// The whole of it.
    fn range(&self) -> SerializedDescriptor;
    /// Its mark that it stays mapped until the process ends.
    fn abandoned(&self) -> &Abandoned;
    /// Says that it stays mapped from now on; gives the bytes that were not said to before.
    fn abandon(&self) -> u64 {
        if self.abandoned().mark() { self.range().size } else { 0 }
    }
}

/// Whether memory is counted among what stays mapped until the process ends: once, however many have left it.
#[derive(Debug, Default)]
pub(crate) struct Abandoned(AtomicBool);

impl Abandoned {
    /// True the first time.
    fn mark(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}

#[derive(Default)]
pub(super) struct Regions {
    /// Each registered range with the number of its holds. Deregistered before the memory is given back: fields drop in
    /// order.
    registered: HashMap<SerializedDescriptor, (RegistrationHandle, usize)>,
    holds: HashMap<RegionId, Arc<dyn Backing>>,
    /// Holds that nobody needs, to be dropped as soon as no transfer uses them.
    released: Vec<RegionId>,
}

impl Regions {
    /// Registers the memory, unless its range is registered already, and keeps it until the hold is released.
    pub(super) fn register(
        &mut self,
        agent: &Agent,
        id: RegionId,
        memory: Arc<dyn Backing>,
    ) -> Result<(), SessionError> {
        match self.registered.entry(memory.range()) {
            Entry::Occupied(mut entry) => entry.get_mut().1 += 1,
            Entry::Vacant(entry) => {
                let handle = agent
                    .register_memory(&Range(*entry.key()), None)
                    .map_err(|error| SessionError::nixl("register memory (see memlock limits)", &error))?;
                entry.insert((handle, 1));
            }
        }
        self.holds.insert(id, memory);
        Ok(())
    }

    pub(super) fn release(&mut self, id: RegionId) {
        self.released.push(id);
    }

    /// The memory of this hold will never be released: gives the bytes that this adds to what stays mapped.
    pub(super) fn abandon(&self, id: RegionId) -> u64 {
        self.holds.get(&id).map_or(0, |memory| memory.abandon())
    }

    /// Drops the holds that were released, except those that `used` says are in use.
    pub(super) fn drop_released(&mut self, used: impl Fn(RegionId) -> bool) {
        let (registered, holds) = (&mut self.registered, &mut self.holds);
        self.released.retain(|id| {
            if used(*id) {
                return true;
            }
            if let Some(memory) = holds.remove(id)
                && let Entry::Occupied(mut entry) = registered.entry(memory.range())
            {
                entry.get_mut().1 -= 1;
                if entry.get().1 == 0 {
                    entry.remove();
                }
            }
            false
        });
    }

    /// Registered ranges.
    pub(super) fn len(&self) -> usize {
        self.registered.len()
    }
}

/// NIXL's kind of memory for a device.
pub(super) fn mem_type(device: Device) -> MemType {
    match device {
        Device::Cpu => MemType::Dram,
        Device::Cuda(_) | Device::Xpu(_) => MemType::Vram,
    }
}

/// Registers a range with nixl-sys.
#[derive(Debug)]
struct Range(SerializedDescriptor);

impl MemoryRegion for Range {
    #[allow(unsafe_code)] // the trait declares it so; nothing unsafe happens in it
    unsafe fn as_ptr(&self) -> *const u8 {
        self.0.ptr as *const u8
    }

    fn size(&self) -> usize {
        // A range of this process's memory.
        self.0.size as usize
    }
}

impl NixlDescriptor for Range {
    fn mem_type(&self) -> MemType {
        mem_type(self.0.device)
    }

    fn device_id(&self) -> u64 {
        self.0.device.index()
    }
}
