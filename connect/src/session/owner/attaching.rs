//! What the thread does for a peer's memory that is used in parts: makes it known, and keeps it so until that use ends.

use super::super::SessionError;
use super::super::command::{Attach, Opened};
use super::super::endpoint::EndpointId;
use super::super::peers::Named;
use super::Owner;
use super::backend::Admitted;

impl Owner {
    pub(super) fn attach(&mut self, attach: Attach) {
        // Its caller may have stopped waiting while the command lay here.
        if !attach.endpoint.is_wanted() {
            return;
        }
        let opened = self.try_attach(&attach);
        attach.answer.give(opened);
    }

    /// All or nothing.
    fn try_attach(&mut self, attach: &Attach) -> Result<Opened, SessionError> {
        self.require_backend()?;
        let peer = attach.peer.agent();
        // Of all that the peer has registered only this, so that nothing else of it can be in the way.
        let needed = attach.peer.parsed().covering(&attach.remote);
        if let Admitted::Later = self.admit(&attach.peer, needed, Named::InParts)? {
            return Err(SessionError::PeerBusy(peer.to_owned()));
        }
        let region = self.register(attach.local.clone())?;
        let endpoint = EndpointId(self.id());
        self.peers.used(peer);
        self.attached.insert(endpoint, peer.into());
        self.endpoints.open_deaf(endpoint, attach.endpoint.clone());
        Ok(Opened { endpoint, regions: vec![region] })
    }

    /// Closes an endpoint of any kind.
    pub(super) fn close(&mut self, endpoint: EndpointId) {
        self.endpoints.close(endpoint);
        if let Some(peer) = self.attached.remove(&endpoint) {
            self.peers.ended(&peer);
            self.retry_waiting();
        }
    }
}
