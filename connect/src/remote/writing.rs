//! Writing: bytes are gathered in a slot until it is full or the next ones belong elsewhere, then they are on their way while
//! the caller goes on. Waits; the bytes move on the session's thread.

use std::time::Instant;

use super::RemoteError;
use super::layout::Piece;
use super::shared::Shared;
use crate::memory::Slot;
use crate::metadata::OperationKind;

/// The slot that is being filled, if there is one.
#[derive(Debug, Default)]
pub(super) struct Gathering(Option<Filling>);

#[derive(Debug)]
struct Filling {
    slot: Slot,
    start: u64,
    length: usize,
}

impl Filling {
    fn takes(&self, at: u64) -> bool {
        self.length < self.slot.len() && at == self.start + self.length as u64
    }
}

impl Gathering {
    /// Takes the bytes for the range that begins at the offset; they are on their way, or in the slot that is not full.
    pub(super) fn write(
        &mut self,
        shared: &Shared,
        offset: u64,
        mut bytes: &[u8],
        deadline: Instant,
    ) -> Result<(), RemoteError> {
        let mut at = offset;
        while !bytes.is_empty() {
            if self.0.as_ref().is_some_and(|filling| !filling.takes(at)) {
                self.send(shared, deadline)?;
            }
            let filling = match &mut self.0 {
                Some(filling) => filling,
                none => none.insert(Filling { slot: shared.free_slot(deadline)?, start: at, length: 0 }),
            };
            let length = bytes.len().min(filling.slot.len() - filling.length);
            let (now, later) = bytes.split_at(length);
            filling.slot[filling.length..filling.length + length].copy_from_slice(now);
            filling.length += length;
            at += length as u64;
            bytes = later;
            if filling.length == filling.slot.len() || at == shared.layout.length() {
                self.send(shared, deadline)?;
            }
        }
        Ok(())
    }

    /// Puts what was gathered on its way. NIXL keeps no order, so bytes that are on their way to the same place come first.
    pub(super) fn send(&mut self, shared: &Shared, deadline: Instant) -> Result<(), RemoteError> {
        let Some(filling) = &self.0 else { return Ok(()) };
        let piece = Piece { start: filling.start, length: filling.length };
        let clear = |state: &mut super::state::State<Slot>| state.is_clear(piece).then_some(());
        shared.waiting.wait(deadline, "the landing of earlier bytes", clear)?;
        let Some(filling) = self.0.take() else { return Ok(()) };
        let mut state = shared.waiting.lock();
        shared.post(&mut state, filling.slot, piece, OperationKind::Write, None).map(drop)
    }
}
