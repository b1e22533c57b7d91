//! Reading: pieces in order, several on their way at once, ahead of what was asked for as long as the reader goes on where it
//! was. Waits; the bytes move on the session's thread.

use std::collections::VecDeque;
use std::time::Instant;

use super::RemoteError;
use super::layout::Piece;
use super::shared::Shared;
use crate::memory::Slot;
use crate::metadata::OperationKind;

/// What was read and not taken yet: one range of the peer's memory from `cursor` on.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The rest of a piece that has landed.
    front: Option<Front>,
    /// Pieces that were posted, in order, by their numbers.
    ahead: VecDeque<(u64, Piece)>,
    /// Where the reader would go on.
    cursor: u64,
    /// Where the next piece begins.
    next: u64,
}

#[derive(Debug)]
struct Front {
    slot: Slot,
    length: usize,
    used: usize,
}

impl Window {
    /// Fills the buffer from the range that begins at the offset.
    pub(super) fn read(
        &mut self,
        shared: &Shared,
        offset: u64,
        mut buffer: &mut [u8],
        deadline: Instant,
    ) -> Result<(), RemoteError> {
        // Who goes on will go on; of who jumps nothing is known.
        let limit = if offset == self.cursor {
            shared.layout.length()
        } else {
            self.discard(shared);
            (self.cursor, self.next) = (offset, offset);
            offset + buffer.len() as u64
        };
        while !buffer.is_empty() {
            let Some(front) = &mut self.front else {
                self.post_ahead(shared, limit)?;
                self.front = Some(self.first(shared, limit, deadline)?);
                continue;
            };
            let length = buffer.len().min(front.length - front.used);
            let (now, later) = buffer.split_at_mut(length);
            now.copy_from_slice(&front.slot[front.used..front.used + length]);
            buffer = later;
            front.used += length;
            self.cursor += length as u64;
            if front.used == front.length
                && let Some(spent) = self.front.take()
            {
                shared.waiting.lock().give_back(spent.slot);
                self.post_ahead(shared, limit)?;
            }
        }
        Ok(())
    }

    /// Forgets what was read ahead: it may be another by now, or nobody goes on there.
    pub(super) fn discard(&mut self, shared: &Shared) {
        let mut state = shared.waiting.lock();
        self.front.take().into_iter().for_each(|front| state.give_back(front.slot));
        self.ahead.drain(..).for_each(|(token, _)| state.unwanted(token));
        self.next = self.cursor;
    }

    /// Gives each free slot a piece, up to the limit. Does not wait.
    fn post_ahead(&mut self, shared: &Shared, limit: u64) -> Result<(), RemoteError> {
        while self.next < limit {
            let slot = shared.waiting.lock().take_free();
            let Some(slot) = slot else { return Ok(()) };
            self.post(shared, slot, limit)?;
        }
        Ok(())
    }

    fn post(&mut self, shared: &Shared, slot: Slot, limit: u64) -> Result<(), RemoteError> {
        let left = usize::try_from(limit - self.next).unwrap_or(usize::MAX);
        let piece = Piece { start: self.next, length: left.min(slot.len()) };
        let mut state = shared.waiting.lock();
        let token = shared.post(&mut state, slot, piece, OperationKind::Read, None)?;
        self.ahead.push_back((token, piece));
        self.next = piece.end();
        Ok(())
    }

    /// Waits for the first piece.
    fn first(&mut self, shared: &Shared, limit: u64, deadline: Instant) -> Result<Front, RemoteError> {
        if self.ahead.is_empty() {
            // All slots are still in NIXL's hands, for what was discarded.
            let slot = shared.free_slot(deadline)?;
            self.post(shared, slot, limit)?;
        }
        let Some(&(token, piece)) = self.ahead.front() else { return Err(RemoteError::Closed) };
        let slot = shared.waiting.wait(deadline, "the peer's bytes", |state| state.take(token))?;
        self.ahead.pop_front();
        Ok(Front { slot, length: piece.length, used: 0 })
    }
}
