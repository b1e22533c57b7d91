//! Registered memory: kept until nobody needs it, and never dropped while a write may still read it. Calls NIXL.

use std::collections::HashMap;
use std::sync::Arc;

use nixl_sys::{Agent, MemType, MemoryRegion, NixlDescriptor, RegistrationHandle};

use super::SessionError;
use super::command::RegionId;
use crate::memory::Arena;

#[derive(Default)]
pub(super) struct Regions {
    /// Deregistered before their memory is unmapped: fields of the tuple drop in order.
    registered: HashMap<RegionId, (RegistrationHandle, Arc<Arena>)>,
    /// To be dropped as soon as no write uses them.
    released: Vec<RegionId>,
}

impl Regions {
    pub(super) fn register(
        &mut self,
        agent: &Agent,
        id: RegionId,
        arena: Arc<Arena>,
    ) -> Result<(), SessionError> {
        let handle = agent
            .register_memory(&Range(&arena), None)
            .map_err(|error| SessionError::nixl("register memory (see memlock limits)", &error))?;
        self.registered.insert(id, (handle, arena));
        Ok(())
    }

    pub(super) fn release(&mut self, region: RegionId) {
        self.released.push(region);
    }

    /// Drops what was released, except what `used` says is in use.
    pub(super) fn drop_released(&mut self, used: impl Fn(RegionId) -> bool) {
        let registered = &mut self.registered;
        self.released.retain(|region| {
            let keep = used(*region);
            if !keep {
                registered.remove(region);
            }
            keep
        });
    }
}

/// Registers an arena's range with nixl-sys.
#[derive(Debug)]
struct Range<'a>(&'a Arena);

impl MemoryRegion for Range<'_> {
    #[allow(unsafe_code)] // the trait declares it so; nothing unsafe happens in it
    unsafe fn as_ptr(&self) -> *const u8 {
        self.0.address() as *const u8
    }

    fn size(&self) -> usize {
        self.0.len()
    }
}

impl NixlDescriptor for Range<'_> {
    fn mem_type(&self) -> MemType {
        MemType::Dram
    }

    fn device_id(&self) -> u64 {
        0
    }
}
