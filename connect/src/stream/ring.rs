//! The bounds of a ring and its memory. Maps memory.

use super::StreamError;
use crate::memory::{Arena, Slot};
use crate::session::{Link, RegionId};

/// Most slots of one ring.
pub const MAX_SLOTS: usize = 1024;
/// Largest slot, in bytes.
pub const MAX_CHUNK_SIZE: usize = 256 * 1024 * 1024;
/// Most memory of one ring, in bytes.
pub const MAX_RING_BYTES: usize = 4 * 1024 * 1024 * 1024;

/// A ring's measures, within the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ring {
    pub(super) slots: usize,
    pub(super) chunk_size: usize,
}

impl Ring {
    pub(super) fn new(slots: usize, chunk_size: usize) -> Result<Self, StreamError> {
        if slots == 0 || slots > MAX_SLOTS {
            return Err(StreamError::Misuse("a ring has 1 to 1024 slots"));
        }
        if chunk_size == 0 || chunk_size > MAX_CHUNK_SIZE {
            return Err(StreamError::Misuse("a chunk has 1 byte to 256 MiB"));
        }
        if slots.saturating_mul(chunk_size) > MAX_RING_BYTES {
            return Err(StreamError::Misuse("a ring has at most 4 GiB"));
        }
        Ok(Self { slots, chunk_size })
    }

    /// Maps the memory and registers it as one region, which keeps the agent's metadata short.
    pub(super) fn map(self, link: &Link) -> Result<(RegionId, Vec<Slot>), StreamError> {
        let arena = Arena::new(self.slots * self.chunk_size);
        let arena = arena.and_then(|arena| arena.into_slots(self.slots, self.chunk_size));
        let (arena, slots) =
            arena.map_err(|error| StreamError::Session(format!("no staging memory: {error}")))?;
        Ok((link.register(arena)?, slots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_are_bounded() {
        assert!(Ring::new(8, 1 << 20).is_ok());
        for (slots, chunk_size) in
            [(0, 1), (1, 0), (MAX_SLOTS + 1, 1), (1, MAX_CHUNK_SIZE + 1), (1024, 8 << 20)]
        {
            assert!(Ring::new(slots, chunk_size).is_err(), "{slots} x {chunk_size}");
        }
    }
}
