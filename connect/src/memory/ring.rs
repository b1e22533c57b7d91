//! The bounds of a ring of slots, and its memory. Maps memory.

use std::io;
use std::sync::Arc;

use super::{Arena, Slot};

/// Most slots of one ring.
pub const MAX_SLOTS: usize = 1024;
/// Largest slot, in bytes.
pub const MAX_CHUNK_SIZE: usize = 256 * 1024 * 1024;
/// Most memory of one ring, in bytes.
pub const MAX_RING_BYTES: usize = 4 * 1024 * 1024 * 1024;

/// A ring's measures, within the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ring {
    pub(crate) slots: usize,
    pub(crate) chunk_size: usize,
}

impl Ring {
    /// # Errors
    /// What is wrong with the measures.
    pub(crate) fn new(slots: usize, chunk_size: usize) -> Result<Self, &'static str> {
        if slots == 0 || slots > MAX_SLOTS {
            return Err("a ring has 1 to 1024 slots");
        }
        if chunk_size == 0 || chunk_size > MAX_CHUNK_SIZE {
            return Err("a chunk has 1 byte to 256 MiB");
        }
        if slots.saturating_mul(chunk_size) > MAX_RING_BYTES {
            return Err("a ring has at most 4 GiB");
        }
        Ok(Self { slots, chunk_size })
    }

    /// Maps the memory, in one piece, and cuts it into slots.
    pub(crate) fn map(self) -> io::Result<(Arc<Arena>, Vec<Slot>)> {
        Arena::new(self.slots * self.chunk_size)?.into_slots(self.slots, self.chunk_size)
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
