//! The open endpoints of a session, and telling them. No I/O.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::command::Transfer;
use super::endpoint::{Claim, Endpoint, EndpointId};

/// They learn of the session's end however it comes.
#[derive(Default)]
pub(super) struct Endpoints {
    open: HashMap<EndpointId, Arc<dyn Endpoint>>,
    /// Those that expect one message only, by that message.
    by_key: HashMap<Vec<u8>, EndpointId>,
    keys: HashMap<EndpointId, Vec<u8>>,
    /// Those that look at every message: the streams, of which there are few.
    listening: Vec<EndpointId>,
}

impl Endpoints {
    /// Opens one that looks at every message.
    pub(super) fn open(&mut self, id: EndpointId, endpoint: Arc<dyn Endpoint>) {
        self.open.insert(id, endpoint);
        self.listening.push(id);
    }

    /// Opens one that expects no message.
    pub(super) fn open_deaf(&mut self, id: EndpointId, endpoint: Arc<dyn Endpoint>) {
        self.open.insert(id, endpoint);
    }

    /// Opens one that expects this message only. False when another expects it already.
    pub(super) fn open_with_key(
        &mut self,
        id: EndpointId,
        endpoint: Arc<dyn Endpoint>,
        key: Vec<u8>,
    ) -> bool {
        if self.by_key.contains_key(&key) {
            return false;
        }
        self.by_key.insert(key.clone(), id);
        self.keys.insert(id, key);
        self.open.insert(id, endpoint);
        true
    }

    pub(super) fn close(&mut self, id: EndpointId) {
        self.listening.retain(|listening| *listening != id);
        if let Some(key) = self.keys.remove(&id) {
            self.by_key.remove(&key);
        }
        self.open.remove(&id);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn notified(&self, peer: &str, message: &[u8]) -> Claim {
        let by_key = self.by_key.get(message).and_then(|id| self.open.get(id));
        let mut asked =
            by_key.into_iter().chain(self.listening.iter().filter_map(|listening| self.open.get(listening)));
        let taken = asked.any(|endpoint| endpoint.notified(peer, message) == Claim::Taken);
        if taken { Claim::Taken } else { Claim::Foreign }
    }

    pub(super) fn transferred(&self, transfer: &Transfer) {
        if let Some(endpoint) = self.open.get(&transfer.endpoint) {
            endpoint.transferred(transfer.token);
        }
    }

    pub(super) fn refused(&self, transfer: &Transfer, reason: &str) {
        if let Some(endpoint) = self.open.get(&transfer.endpoint) {
            endpoint.refused(transfer.token, reason);
        }
    }

    pub(super) fn stuck(&self, endpoint: EndpointId, token: u64, reason: &str) {
        if let Some(endpoint) = self.open.get(&endpoint) {
            endpoint.stuck(token, reason);
        }
    }

    pub(super) fn failed(&self, transfer: &Transfer) {
        if let Some(endpoint) = self.open.get(&transfer.endpoint) {
            endpoint.failed(transfer.token);
        }
    }

    pub(super) fn lost(&self, peer: &str, reason: &str) {
        self.open.values().for_each(|endpoint| endpoint.lost(peer, reason));
    }

    pub(super) fn tick(&self, now: Instant) {
        self.open.values().for_each(|endpoint| endpoint.tick(now));
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        self.open.values().for_each(|endpoint| endpoint.closed());
    }
}
