//! The open endpoints of a session, and telling them. No I/O.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::endpoint::{Claim, Endpoint, EndpointId};

/// They learn of the session's end however it comes.
#[derive(Default)]
pub(super) struct Endpoints(HashMap<EndpointId, Arc<dyn Endpoint>>);

impl Endpoints {
    pub(super) fn open(&mut self, id: EndpointId, endpoint: Arc<dyn Endpoint>) {
        self.0.insert(id, endpoint);
    }

    pub(super) fn close(&mut self, id: EndpointId) {
        self.0.remove(&id);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Asks one after the other until one takes the notification; there are few.
    pub(super) fn notified(&self, peer: &str, message: &[u8]) -> Claim {
        let taken = self.0.values().any(|endpoint| endpoint.notified(peer, message) == Claim::Taken);
        if taken { Claim::Taken } else { Claim::Foreign }
    }

    pub(super) fn written(&self, id: EndpointId, token: u64) {
        if let Some(endpoint) = self.0.get(&id) {
            endpoint.written(token);
        }
    }

    pub(super) fn refused(&self, id: EndpointId, token: u64, reason: &str) {
        if let Some(endpoint) = self.0.get(&id) {
            endpoint.refused(token, reason);
        }
    }

    pub(super) fn lost(&self, peer: &str, reason: &str) {
        self.0.values().for_each(|endpoint| endpoint.lost(peer, reason));
    }

    pub(super) fn tick(&self, now: Instant) {
        self.0.values().for_each(|endpoint| endpoint.tick(now));
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        self.0.values().for_each(|endpoint| endpoint.closed());
    }
}
