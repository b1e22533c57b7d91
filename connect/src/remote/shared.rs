//! What remote memory shares with the session's thread: posts pieces, hears of their ends. Never blocks, but in its waits.

use std::sync::Arc;
use std::time::Instant;

use super::RemoteError;
use super::layout::{Layout, Piece};
use super::state::State;
use crate::device::Device;
use crate::memory::Slot;
use crate::metadata::{OperationKind, SerializedDescriptor};
use crate::session::{Claim, Endpoint, Link, Local, Opened, SessionError, Transfer};
use crate::waiting::{Faulty, Waiting};

pub(super) struct Shared {
    pub(super) waiting: Arc<Waiting<State<Slot>>>,
    pub(super) link: Link,
    pub(super) peer: Arc<str>,
    /// What the memory is offered for.
    pub(super) kind: OperationKind,
    pub(super) layout: Layout,
}

impl Shared {
    /// The session's answer to [`Link::attach`].
    pub(super) fn opened(&self, result: Result<Opened, SessionError>) {
        let mut state = self.waiting.lock();
        let late = match result {
            Ok(opened) => state.open(opened),
            Err(error) => {
                state.fail(error.into());
                None
            }
        };
        drop(state);
        self.waiting.wake();
        if let Some(opened) = late {
            self.link.close_opened(&opened);
        }
    }

    /// Reads a piece of the peer's memory into the slot, or writes it from there; gives its number. Its first bytes are the
    /// piece's. With a message the peer is told when that has happened.
    pub(super) fn post(
        &self,
        state: &mut State<Slot>,
        slot: Slot,
        piece: Piece,
        kind: OperationKind,
        message: Option<Vec<u8>>,
    ) -> Result<u64, RemoteError> {
        let Some(Opened { endpoint, regions }) = state.opened().cloned() else {
            state.give_back(slot);
            return Err(RemoteError::Closed);
        };
        let mut address = slot.address() as u64;
        let remote = self.layout.parts(piece);
        let local = remote.iter().zip(regions.iter().cycle()).map(|(part, region)| {
            let memory = SerializedDescriptor { device: Device::Cpu, ptr: address, size: part.size };
            address += part.size;
            Local { region: *region, memory }
        });
        let local = local.collect();
        let token = state.post(slot, piece, kind);
        let peer = Arc::clone(&self.peer);
        let in_flight = Vec::new();
        self.link.post(Transfer { endpoint, token, kind, peer, local, remote, message, in_flight });
        Ok(token)
    }

    /// A slot that nobody uses.
    pub(super) fn free_slot(&self, deadline: Instant) -> Result<Slot, RemoteError> {
        self.waiting.wait(deadline, "a free slot", State::take_free)
    }

    /// Whether a call for this range fits what is offered, and no failure stands in its way.
    pub(super) fn allow(
        &self,
        offered: OperationKind,
        needed: OperationKind,
        offset: u64,
        length: usize,
    ) -> Result<(), RemoteError> {
        self.check()?;
        if self.kind != offered {
            return Err(RemoteError::Kind { offered: self.kind, needed });
        }
        self.layout.check(offset, length)
    }

    /// The failure that stays, if there is one.
    pub(super) fn check(&self) -> Result<(), RemoteError> {
        self.waiting.lock().fault().map_or(Ok(()), |fault| Err(fault.clone()))
    }

    /// Waits until all that was written is in the peer's memory.
    pub(super) fn flushed(&self, deadline: Instant) -> Result<(), RemoteError> {
        self.waiting.wait(deadline, "the landing of all bytes", |state| state.is_flushed().then_some(()))
    }

    /// Waits until NIXL is done with every piece.
    pub(super) fn quiet(&self, deadline: Instant) -> Result<(), RemoteError> {
        self.waiting.wait(deadline, "the end of what is in flight", |state| state.is_quiet().then_some(()))
    }

    /// Nobody wants it any more. The session keeps the memory for as long as NIXL may use it.
    pub(super) fn give_up(&self) {
        let opened = self.waiting.lock().give_up();
        if let Some(opened) = opened {
            self.link.close_opened(&opened);
        }
    }
}

impl Endpoint for Shared {
    fn is_wanted(&self) -> bool {
        !self.waiting.lock().is_given_up()
    }

    fn notified(&self, _peer: &str, _message: &[u8]) -> Claim {
        Claim::Foreign
    }

    fn transferred(&self, token: u64) {
        self.waiting.lock().landed(token);
        self.waiting.wake();
    }

    fn refused(&self, _token: u64, reason: &str) {
        self.waiting.fail(RemoteError::Transfer(reason.to_owned()));
    }

    /// The piece counts as on its way for good: nothing may take it for landed before `lost` comes.
    fn failed(&self, _token: u64) {}

    /// The piece counts as on its way for good, so its slot is never used again.
    fn stuck(&self, _token: u64, reason: &str) {
        self.waiting.fail(RemoteError::Transfer(format!("in part at most: {reason}")));
    }

    fn lost(&self, peer: &str, reason: &str) {
        if *self.peer == *peer {
            self.waiting.fail(RemoteError::PeerLost { peer: peer.to_owned(), reason: reason.to_owned() });
        }
    }

    fn tick(&self, _now: Instant) {}

    fn closed(&self) {
        self.waiting.fail(RemoteError::Closed);
    }
}
