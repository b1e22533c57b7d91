//! What the thread does for the agent as a whole: its backend, its metadata, its peers, registered memory.

use std::sync::Arc;

use nixl_sys::{MemType, NixlError, NotificationMap, RegDescList};

use super::super::command::RegionId;
use super::super::peers::{Admission, Named};
use super::super::regions::{Backing, mem_type};
use super::super::transfers::Transfers;
use super::super::{BACKEND, SessionError};
use super::{Live, Owner};
use crate::metadata::{AgentMetadata, CheckedMetadata, MemoryKind, MemorySection, SerializedDescriptor};

impl Owner {
    pub(super) fn create_backend(&mut self) -> Result<(), SessionError> {
        if self.live.is_some() {
            return Err(SessionError::Backend("exists already"));
        }
        let nixl = |error: NixlError| SessionError::nixl("create the UCX backend", &error);
        let (_, parameters) = self.agent.get_plugin_params(BACKEND).map_err(nixl)?;
        let backend = self.agent.create_backend(BACKEND, &parameters).map_err(nixl)?;
        let transfers = Transfers::new(&backend).map_err(nixl)?;
        let notifications = NotificationMap::new().map_err(nixl)?;
        self.live = Some(Live { backend, transfers, notifications });
        Ok(())
    }

    pub(super) fn memory_kinds(&self) -> Result<Vec<MemoryKind>, SessionError> {
        let nixl = |error: NixlError| SessionError::nixl("tell the UCX plugin's kinds of memory", &error);
        let (kinds, _) = self.agent.get_plugin_params(BACKEND).map_err(nixl)?;
        let mut known = Vec::new();
        for kind in kinds.iter() {
            match kind.map_err(nixl)? {
                MemType::Dram => known.push(MemoryKind::Dram),
                MemType::Vram => known.push(MemoryKind::Vram),
                MemType::Block => known.push(MemoryKind::Block),
                MemType::Object => known.push(MemoryKind::Object),
                MemType::File => known.push(MemoryKind::File),
                MemType::Unknown => {}
            }
        }
        Ok(known)
    }

    pub(super) fn metadata(&self) -> Result<Vec<u8>, SessionError> {
        self.require_backend()?;
        self.agent.get_local_md().map_err(|error| SessionError::nixl("give its metadata", &error))
    }

    /// The agent's metadata with these registered ranges only, all of one kind of memory. NIXL is not asked for all that it
    /// has, which has no bound.
    pub(super) fn metadata_of(&self, ranges: &[SerializedDescriptor]) -> Result<AgentMetadata, SessionError> {
        // NIXL says how it is reached without ranges only, and nixl-sys cannot ask for both.
        let mut metadata = self.partial_metadata(&[])?;
        // In NIXL's order, and each once.
        metadata.sections = self.partial_metadata(ranges)?.covering(ranges);
        Ok(metadata)
    }

    fn partial_metadata(&self, ranges: &[SerializedDescriptor]) -> Result<AgentMetadata, SessionError> {
        let nixl = |error: NixlError| SessionError::nixl("give its metadata for some memory", &error);
        let kind = ranges.first().map_or(MemType::Dram, |range| mem_type(range.device));
        let mut list = RegDescList::new(kind).map_err(nixl)?;
        for range in ranges {
            // Of this process's memory.
            list.add_desc(range.ptr as usize, range.size as usize, range.device.index());
        }
        let bytes = self.agent.get_local_partial_md(&list, None).map_err(nixl)?;
        AgentMetadata::parse(&bytes).map_err(|error| SessionError::OwnMetadata(error.to_string()))
    }

    /// Loads all of a peer's memory, for as long as the session lives.
    pub(super) fn load_peer(&mut self, peer: &CheckedMetadata) -> Result<(), SessionError> {
        self.require_backend()?;
        match self.admit(peer, peer.parsed().ucx_sections(), Named::InParts)? {
            Admitted::Yes => {
                self.peers.pin(peer.agent());
                Ok(())
            }
            Admitted::Later => Err(SessionError::PeerBusy(peer.agent().to_owned())),
        }
    }

    /// Loads a peer so far that it can be notified.
    pub(super) fn meet_peer(&mut self, peer: &CheckedMetadata) -> Result<(), SessionError> {
        self.require_backend()?;
        // Nothing of its memory is asked for, so there is nothing to wait for.
        self.admit(peer, Vec::new(), Named::Exactly).map(drop)
    }

    /// Makes NIXL know these sections of the peer, if that can be done now.
    pub(super) fn admit(
        &mut self,
        peer: &CheckedMetadata,
        sections: Vec<MemorySection>,
        named: Named,
    ) -> Result<Admitted, SessionError> {
        let name = peer.agent();
        if name == self.name {
            return Err(SessionError::OwnAgent);
        }
        match self.peers.admit(name, &peer.parsed().connections, sections, named)? {
            Admission::Ready => {}
            Admission::Load(metadata) => self.load(&metadata, false)?,
            Admission::Replace(metadata) => {
                // An error says that NIXL does not know the peer, which is what is wanted.
                if let Err(error) = self.agent.invalidate_remote_md(name) {
                    tracing::debug!(peer = name, %error, "NIXL had nothing to forget");
                }
                self.load(&metadata, true)?;
            }
            Admission::Wait => return Ok(Admitted::Later),
        }
        Ok(Admitted::Yes)
    }

    fn load(&mut self, metadata: &AgentMetadata, anew: bool) -> Result<(), SessionError> {
        let fault = match self.agent.load_remote_md(&metadata.to_bytes()) {
            Ok(name) if name == metadata.agent => {
                self.peers.loaded(metadata, anew);
                return Ok(());
            }
            Ok(_) => "NIXL read another agent name than this crate".to_owned(),
            Err(error) => format!("NIXL could not load its metadata, as when it is gone: {error}"),
        };
        // After a load that failed NIXL is of two minds about the peer; a second try would fail in other ways.
        self.lose(&metadata.agent, &fault);
        Err(SessionError::PeerLost { peer: metadata.agent.clone(), reason: fault })
    }

    pub(super) fn register(&mut self, memory: Arc<dyn Backing>) -> Result<RegionId, SessionError> {
        self.require_backend()?;
        let id = RegionId(self.id());
        self.regions.register(&self.agent, id, memory)?;
        Ok(id)
    }

    pub(super) fn drop_released(&mut self) {
        let transfers = self.live.as_ref().map(|live| &live.transfers);
        self.regions.drop_released(|region| transfers.is_some_and(|transfers| transfers.uses(region)));
    }
}

/// Whether NIXL knows what was asked for.
pub(super) enum Admitted {
    Yes,
    /// It can be asked again when a transfer with this peer has ended.
    Later,
}
