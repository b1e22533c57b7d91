//! The peers that this session's agent knows, and those it has lost. A lost name never comes back: NIXL can crash on a
//! peer that restarts under its old name. No I/O.

use std::collections::HashMap;

use super::SessionError;

enum Peer {
    /// NIXL has loaded these bytes, told by their digest.
    Loaded(u64),
    Lost(String),
}

#[derive(Default)]
pub(super) struct Peers {
    known: HashMap<String, Peer>,
}

impl Peers {
    /// Whether the metadata with this digest must be loaded: false when it is already.
    pub(super) fn must_load(&self, name: &str, digest: u64) -> Result<bool, SessionError> {
        match self.known.get(name) {
            None => Ok(true),
            Some(Peer::Loaded(loaded)) => Ok(*loaded != digest),
            Some(Peer::Lost(reason)) => {
                Err(SessionError::PeerLost { peer: name.to_owned(), reason: reason.clone() })
            }
        }
    }

    pub(super) fn loaded(&mut self, name: &str, digest: u64) {
        self.known.insert(name.to_owned(), Peer::Loaded(digest));
    }

    /// Marks a peer as lost; true when it was not lost before.
    pub(super) fn lose(&mut self, name: &str, reason: &str) -> bool {
        if self.is_lost(name) {
            return false;
        }
        self.known.insert(name.to_owned(), Peer::Lost(reason.to_owned()));
        true
    }

    pub(super) fn is_lost(&self, name: &str) -> bool {
        matches!(self.known.get(name), Some(Peer::Lost(_)))
    }
}
