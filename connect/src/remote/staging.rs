//! How much memory is used to stage in. Pure.

use super::RemoteError;
use crate::memory::Ring;

/// The local memory through which a [`RemoteMemory`](crate::RemoteMemory) moves its bytes: as many pieces can be on their way
/// at once as there are slots.
///
/// A slot that is small costs one way to the peer and back for few bytes, and one that is large leaves the cache before its
/// bytes are copied. The example `pieces` measures it. At most
/// [`MAX_SLOTS`](crate::MAX_SLOTS) slots of [`MAX_CHUNK_SIZE`](crate::MAX_CHUNK_SIZE), and
/// [`MAX_RING_BYTES`](crate::MAX_RING_BYTES) in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staging {
    /// How many.
    pub slots: usize,
    /// The bytes of each.
    pub slot_size: usize,
}

impl Default for Staging {
    fn default() -> Self {
        Self { slots: 8, slot_size: 1 << 20 }
    }
}

impl Staging {
    /// The slots for memory of this length: no more and no larger than it can use.
    pub(super) fn ring_for(self, length: u64) -> Result<Ring, RemoteError> {
        let asked = Ring::new(self.slots, self.slot_size).map_err(RemoteError::Misuse)?;
        let most = usize::try_from(length).unwrap_or(usize::MAX).max(1);
        let chunk_size = asked.chunk_size.min(most);
        Ok(Ring { slots: asked.slots.min(most.div_ceil(chunk_size)), chunk_size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_memory_has_small_staging() {
        let ring = |slots, slot_size, length| {
            Staging { slots, slot_size }.ring_for(length).map(|ring| (ring.slots, ring.chunk_size)).ok()
        };
        assert_eq!(ring(8, 1 << 20, u64::MAX), Some((8, 1 << 20)));
        assert_eq!(ring(8, 1 << 20, 1), Some((1, 1)));
        assert_eq!(ring(8, 64, 129), Some((3, 64)));
        assert_eq!(ring(0, 64, 129), None);
        assert_eq!(ring(1, 0, 129), None);
    }
}
