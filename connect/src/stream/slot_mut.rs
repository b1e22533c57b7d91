//! A free slot in the hands of the sender's caller: filled, digested and sent, or given back. No I/O of its own.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::StreamError;
use super::send_slot::SendSlot;
use super::sending::Sending;
use crate::digest::chunk_digest;
use crate::memory::Slot;

/// A free slot, derefs to its bytes. Dropped without [`SlotMut::send`] it is free again.
#[derive(Debug)]
pub struct SlotMut {
    /// `None` only after `send` took it.
    slot: Option<Slot>,
    shared: Arc<Sending>,
}

impl SlotMut {
    pub(super) fn new(slot: Slot, shared: Arc<Sending>) -> Self {
        Self { slot: Some(slot), shared }
    }

    /// Sends the first `length` bytes as the next chunk; gives its number. Returns before they have moved.
    ///
    /// # Errors
    /// `Misuse` for a length of 0 or beyond the slot; else the stream's failure.
    pub fn send(mut self, length: usize) -> Result<u64, StreamError> {
        let Some(slot) = self.slot.take() else { return Err(StreamError::Closed) };
        let (Some(bytes), Ok(wire_length)) =
            (slot.get(..length).filter(|bytes| !bytes.is_empty()), u32::try_from(length))
        else {
            self.slot = Some(slot);
            return Err(StreamError::Misuse("a chunk has at least one byte and fits its slot"));
        };
        let digest = chunk_digest(bytes);
        self.shared.send(SendSlot::Own(slot), wire_length, digest)
    }
}

impl Deref for SlotMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.slot.as_deref().unwrap_or_default()
    }
}

impl DerefMut for SlotMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.slot.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for SlotMut {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.shared.waiting.lock().give_back(SendSlot::Own(slot));
            self.shared.waiting.wake();
        }
    }
}
