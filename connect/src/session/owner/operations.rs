//! What the thread does for the four operations: begins active ones, offers the memory of passive ones.

use std::sync::Arc;

use super::super::SessionError;
use super::super::command::{Begin, Local, Offer, Opened, RegionId, Transfer};
use super::super::endpoint::{Endpoint, EndpointId};
use super::super::peers::Named;
use super::super::regions::Backing;
use super::Owner;
use super::backend::Admitted;
use crate::metadata::AgentMetadata;

impl Owner {
    /// Begins an active operation now, or as soon as its peer can be loaded.
    pub(super) fn begin(&mut self, begin: Box<Begin>) {
        if let Err(error) = self.require_backend() {
            return begin.refuse(error);
        }
        // Those that wait for the same peer come first.
        let peer = begin.peer.agent();
        if self.waiting.iter().any(|waiting| waiting.peer.agent() == peer) {
            return self.waiting.push_back(begin);
        }
        if let Some(begin) = self.try_begin(begin) {
            self.waiting.push_back(begin);
        }
    }

    /// Tries those that wait, in the order in which they came.
    pub(super) fn retry_waiting(&mut self) {
        for begin in std::mem::take(&mut self.waiting) {
            self.begin(begin);
        }
    }

    /// Gives the operation back when its peer cannot be loaded yet.
    fn try_begin(&mut self, begin: Box<Begin>) -> Option<Box<Begin>> {
        if !begin.endpoint.is_wanted() {
            return None;
        }
        let needed = begin.peer.parsed().covering(&begin.remote);
        match self.admit(&begin.peer, needed, Named::Exactly) {
            Ok(Admitted::Yes) => {}
            Ok(Admitted::Later) => return Some(begin),
            Err(error) => {
                begin.refuse(error);
                return None;
            }
        }
        let regions = match self.register_all(&begin.local) {
            Ok(regions) => regions,
            Err(error) => {
                begin.refuse(error);
                return None;
            }
        };
        let Begin { endpoint, kind, local, remote, peer, message, in_flight, answer } = *begin;
        let id = EndpointId(self.id());
        self.endpoints.open_deaf(id, endpoint);
        let ranges = regions.iter().zip(&local);
        let local =
            ranges.map(|(region, memory)| Local { region: *region, memory: memory.range() }).collect();
        answer.give(Ok(Opened { endpoint: id, regions }));
        let peer: Arc<str> = peer.agent().into();
        self.post(Box::new(Transfer {
            endpoint: id,
            token: 0,
            kind,
            peer,
            local,
            remote,
            message: Some(message),
            in_flight,
        }));
        None
    }

    pub(super) fn offer(&mut self, offer: Offer) {
        let Offer { endpoint, key, local, answer } = offer;
        let opened = self.register_all(&local).and_then(|regions| {
            let opened = self.open_offer(endpoint, key, &regions, &local);
            if opened.is_err() {
                self.release_all(&regions);
            }
            opened
        });
        answer.give(opened);
    }

    fn open_offer(
        &mut self,
        endpoint: Arc<dyn Endpoint>,
        key: Vec<u8>,
        regions: &[RegionId],
        local: &[Arc<dyn Backing>],
    ) -> Result<(Opened, AgentMetadata), SessionError> {
        // A peer is told of the memory that it is meant to reach, and of no other operation's.
        let ranges: Vec<_> = local.iter().map(|memory| memory.range()).collect();
        let metadata = self.metadata_of(&ranges)?;
        let id = EndpointId(self.id());
        if !self.endpoints.open_with_key(id, endpoint, key) {
            return Err(SessionError::KeyInUse);
        }
        Ok((Opened { endpoint: id, regions: regions.to_vec() }, metadata))
    }

    /// All or none.
    fn register_all(&mut self, memories: &[Arc<dyn Backing>]) -> Result<Vec<RegionId>, SessionError> {
        let mut regions = Vec::with_capacity(memories.len());
        for memory in memories {
            match self.register(Arc::clone(memory)) {
                Ok(region) => regions.push(region),
                Err(error) => {
                    self.release_all(&regions);
                    return Err(error);
                }
            }
        }
        Ok(regions)
    }

    fn release_all(&mut self, regions: &[RegionId]) {
        regions.iter().for_each(|region| self.regions.release(*region));
        self.drop_released();
    }
}
