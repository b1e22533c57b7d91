//! The end of the use of a peer's memory: all is well and the peer is told so, once and last; or it is told nothing.

use std::time::Instant;

use super::layout::Piece;
use super::{RemoteError, RemoteMemory};
use crate::metadata::OperationKind;

impl RemoteMemory {
    /// Tells the peer that it is complete, by the notification that its operation waits for. All that was written has landed
    /// before, and NIXL is done with all of the memory, for the peer may free it then.
    ///
    /// The notification goes with a READ of one byte: so the session knows when it is handed to the network, and a peer that
    /// is gone is an error.
    ///
    /// # Errors
    /// `EarlierFailure` when any call on this memory has failed, and nothing is sent: begin again with fresh metadata.
    /// `DeadlineExceeded`, `PeerLost`, `Transfer` or `Closed`: then the peer was not told, unless what was waited for is the
    /// notification itself, which may still come to it.
    pub fn complete(mut self, deadline: Instant) -> Result<(), RemoteError> {
        if let Some(earlier) = self.failure.take() {
            return Err(RemoteError::EarlierFailure(Box::new(earlier)));
        }
        self.shared.check()?;
        self.window.discard(&self.shared);
        self.land(deadline)?;
        // What was read ahead must be over too: its memory may be gone as soon as the peer is told.
        self.shared.quiet(deadline)?;
        let slot = self.shared.free_slot(deadline)?;
        let key = std::mem::take(&mut self.key);
        let told = {
            let mut state = self.shared.waiting.lock();
            let first = Piece { start: 0, length: 1 };
            self.shared.post(&mut state, slot, first, OperationKind::Read, Some(key))?
        };
        self.shared.waiting.wait(deadline, "the notification", |state| state.has_landed(told).then_some(()))
    }

    /// Waits until all that was written is in the peer's memory.
    pub(super) fn land(&mut self, deadline: Instant) -> Result<(), RemoteError> {
        self.gathering.send(&self.shared, deadline)?;
        self.shared.flushed(deadline)
    }
}

impl Drop for RemoteMemory {
    fn drop(&mut self) {
        self.shared.give_up();
    }
}
