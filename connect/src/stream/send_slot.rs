//! Where the bytes of a chunk lie on their way out. No I/O.

use std::sync::Arc;

use super::receiver::Chunk;
use crate::memory::Slot;

/// A slot of the sender's own ring, or in a relay a number for the slot in which a chunk came.
#[derive(Debug)]
pub(super) enum SendSlot {
    /// Filled by the sender's caller.
    Own(Slot),
    /// Stands for one slot at the receiver; the bytes are another stream's chunk, which is kept until they are through.
    Relay { index: u32, chunk: Option<Arc<Chunk>> },
}

impl SendSlot {
    /// The slot's number at the receiver.
    pub(super) fn index(&self) -> u32 {
        match self {
            // Bounded by `MAX_SLOTS`.
            Self::Own(slot) => slot.index() as u32,
            Self::Relay { index, .. } => *index,
        }
    }

    /// Where the bytes lie; `None` for a relay's slot without a chunk.
    pub(super) fn address(&self) -> Option<usize> {
        match self {
            Self::Own(slot) => Some(slot.address()),
            Self::Relay { chunk, .. } => chunk.as_ref().and_then(|chunk| chunk.address()),
        }
    }

    /// The chunk is through: in a relay its slot may go back to where it came from.
    pub(super) fn empty(&mut self) {
        if let Self::Relay { chunk, .. } = self {
            *chunk = None;
        }
    }
}
