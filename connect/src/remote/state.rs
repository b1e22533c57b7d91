//! What is known of the slots, and what each event changes. Pure: no lock, no NIXL, no clock.

use std::collections::HashMap;

use super::RemoteError;
use super::layout::Piece;
use crate::metadata::OperationKind;
use crate::session::Opened;
use crate::waiting::Faulty;

/// A piece that was posted, with its slot: NIXL has the slot until it has landed.
#[derive(Debug)]
struct Posted<S> {
    slot: S,
    piece: Piece,
    kind: OperationKind,
    landed: bool,
    /// Somebody wants the slot with what was read; else it is free as soon as NIXL is done with it.
    wanted: bool,
}

#[derive(Debug)]
pub(super) struct State<S> {
    /// What the session holds for it, once it does.
    opened: Option<Opened>,
    /// Nobody waits any more for what the session will say.
    given_up: bool,
    free: Vec<S>,
    posted: HashMap<u64, Posted<S>>,
    next_token: u64,
    fault: Option<RemoteError>,
}

impl<S> State<S> {
    pub(super) fn new(slots: Vec<S>) -> Self {
        Self {
            opened: None,
            given_up: false,
            free: slots,
            posted: HashMap::new(),
            next_token: 0,
            fault: None,
        }
    }

    /// The session has made the peer's memory known. Gives what it holds back when nobody wants it any more.
    pub(super) fn open(&mut self, opened: Opened) -> Option<Opened> {
        if self.given_up {
            return Some(opened);
        }
        self.opened = Some(opened);
        None
    }

    /// Its holder goes: gives what the session must be told to close.
    pub(super) fn give_up(&mut self) -> Option<Opened> {
        self.given_up = true;
        self.opened.take()
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up
    }

    pub(super) fn opened(&self) -> Option<&Opened> {
        self.opened.as_ref()
    }

    /// A slot that nobody uses. The one that came back last is the likeliest to be in the cache.
    pub(super) fn take_free(&mut self) -> Option<S> {
        if self.fault.is_some() { None } else { self.free.pop() }
    }

    pub(super) fn give_back(&mut self, slot: S) {
        self.free.push(slot);
    }

    /// Numbers a piece that NIXL has from now on.
    pub(super) fn post(&mut self, slot: S, piece: Piece, kind: OperationKind) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        let wanted = kind == OperationKind::Read;
        self.posted.insert(token, Posted { slot, piece, kind, landed: false, wanted });
        token
    }

    /// NIXL is done with the piece, and all went well.
    pub(super) fn landed(&mut self, token: u64) {
        if let Some(posted) = self.posted.get_mut(&token) {
            posted.landed = true;
            self.settle(token);
        }
    }

    /// Nobody will take the piece.
    pub(super) fn unwanted(&mut self, token: u64) {
        if let Some(posted) = self.posted.get_mut(&token) {
            posted.wanted = false;
            self.settle(token);
        }
    }

    fn settle(&mut self, token: u64) {
        if self.posted.get(&token).is_some_and(|posted| posted.landed && !posted.wanted)
            && let Some(posted) = self.posted.remove(&token)
        {
            self.free.push(posted.slot);
        }
    }

    /// The slot of a piece that has landed.
    pub(super) fn take(&mut self, token: u64) -> Option<S> {
        if self.fault.is_some() || !self.posted.get(&token)?.landed {
            return None;
        }
        self.posted.remove(&token).map(|posted| posted.slot)
    }

    /// Whether no byte is on its way to the peer's memory that would lie over this piece: NIXL keeps no order.
    pub(super) fn is_clear(&self, piece: Piece) -> bool {
        let mut posted = self.posted.values();
        !posted.any(|it| !it.landed && it.kind == OperationKind::Write && it.piece.overlaps(piece))
    }

    /// Whether the piece has landed and was not taken, whatever happened after that.
    pub(super) fn has_landed(&self, token: u64) -> bool {
        self.posted.get(&token).is_some_and(|posted| posted.landed)
    }

    /// Whether all that was written is in the peer's memory.
    pub(super) fn is_flushed(&self) -> bool {
        let on_its_way = |posted: &Posted<S>| !posted.landed && posted.kind == OperationKind::Write;
        self.fault.is_none() && !self.posted.values().any(on_its_way)
    }

    /// Whether NIXL is done with everything, and all went well.
    pub(super) fn is_quiet(&self) -> bool {
        self.fault.is_none() && self.posted.values().all(|posted| posted.landed)
    }
}

impl<S: Send> Faulty for State<S> {
    type Fault = RemoteError;

    fn fail(&mut self, fault: RemoteError) {
        self.fault.get_or_insert(fault);
    }

    fn fault(&self) -> Option<&RemoteError> {
        self.fault.as_ref()
    }
}

#[cfg(test)]
mod tests;
