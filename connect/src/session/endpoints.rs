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

    pub(super) fn notified(&mut self, peer: &str, message: &[u8]) -> Claim {
        let by_key = self.by_key.get(message).copied();
        let mut asked = by_key.into_iter().chain(self.listening.iter().copied());
        let takes = |id: &EndpointId| {
            self.open.get(id).is_some_and(|endpoint| endpoint.notified(peer, message) == Claim::Taken)
        };
        let Some(taker) = asked.find(takes) else { return Claim::Foreign };
        self.close_if_over(taker);
        Claim::Taken
    }

    pub(super) fn transferred(&mut self, transfer: &Transfer) {
        self.tell(transfer.endpoint, |endpoint| endpoint.transferred(transfer.token));
    }

    pub(super) fn refused(&mut self, transfer: &Transfer, reason: &str) {
        self.tell(transfer.endpoint, |endpoint| endpoint.refused(transfer.token, reason));
    }

    pub(super) fn stuck(&mut self, endpoint: EndpointId, token: u64, reason: &str) {
        self.tell(endpoint, |endpoint| endpoint.stuck(token, reason));
    }

    pub(super) fn failed(&mut self, transfer: &Transfer) {
        self.tell(transfer.endpoint, |endpoint| endpoint.failed(transfer.token));
    }

    pub(super) fn lost(&mut self, peer: &str, reason: &str) {
        self.open.values().for_each(|endpoint| endpoint.lost(peer, reason));
        let over: Vec<_> =
            self.open.iter().filter(|(_, endpoint)| endpoint.is_over()).map(|(id, _)| *id).collect();
        over.into_iter().for_each(|id| self.close(id));
    }

    fn tell(&mut self, id: EndpointId, tell: impl FnOnce(&dyn Endpoint)) {
        if let Some(endpoint) = self.open.get(&id) {
            tell(&**endpoint);
            self.close_if_over(id);
        }
    }

    fn close_if_over(&mut self, id: EndpointId) {
        if self.open.get(&id).is_some_and(|endpoint| endpoint.is_over()) {
            self.close(id);
        }
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

#[cfg(test)]
mod tests;
