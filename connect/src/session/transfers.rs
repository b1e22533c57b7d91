//! Writes in flight: posted to NIXL and polled until they end. None is ever dropped before its end. Calls NIXL.

use nixl_sys::{Agent, Backend, MemType, NixlError, OptArgs, XferDescList, XferOp, XferRequest, XferStatus};

use super::command::{RegionId, Write};

struct InFlight {
    write: Box<Write>,
    request: XferRequest,
}

/// What became of a write.
pub(super) enum Outcome {
    Done,
    /// NIXL's C API has one error for everything that can happen to a peer.
    PeerFailed(String),
}

pub(super) struct Transfers {
    in_flight: Vec<InFlight>,
    local: XferDescList<'static>,
    remote: XferDescList<'static>,
    options: OptArgs,
}

/// Why a write could not be posted.
pub(super) enum PostError {
    /// Something on this side, such as a range outside of the peer's metadata.
    Refused(NixlError),
    PeerFailed(NixlError),
}

impl Transfers {
    pub(super) fn new(backend: &Backend) -> Result<Self, NixlError> {
        let mut options = OptArgs::new()?;
        options.add_backend(backend)?;
        Ok(Self {
            in_flight: Vec::new(),
            local: XferDescList::new(MemType::Dram)?,
            remote: XferDescList::new(MemType::Dram)?,
            options,
        })
    }

    /// Posts a write. `Ok(Some)` gives it back when NIXL was done with it at once.
    pub(super) fn post(
        &mut self,
        agent: &Agent,
        write: Box<Write>,
    ) -> Result<Option<Box<Write>>, (Box<Write>, PostError)> {
        match self.try_post(agent, &write) {
            Ok((_, false)) => Ok(Some(write)),
            Ok((request, true)) => {
                self.in_flight.push(InFlight { write, request });
                Ok(None)
            }
            Err(error) => Err((write, error)),
        }
    }

    fn try_post(&mut self, agent: &Agent, write: &Write) -> Result<(XferRequest, bool), PostError> {
        self.local.clear();
        self.local.add_desc(write.local, write.length, 0);
        self.remote.clear();
        self.remote.add_desc(write.remote, write.length, 0);
        self.options.set_notification_message(&write.message).map_err(PostError::Refused)?;
        self.options.set_has_notification(true).map_err(PostError::Refused)?;
        let request = agent
            .create_xfer_req(XferOp::Write, &self.local, &self.remote, &write.peer, Some(&self.options))
            .map_err(|error| match error {
                // Both ranges were checked against registered memory, so what remains is a peer that NIXL has dropped.
                NixlError::FailedToCreateXferRequest => PostError::PeerFailed(error),
                other => PostError::Refused(other),
            })?;
        match agent.post_xfer_req(&request, Some(&self.options)) {
            Ok(in_progress) => Ok((request, in_progress)),
            Err(error @ NixlError::InvalidParam) => Err(PostError::Refused(error)),
            Err(error) => Err(PostError::PeerFailed(error)),
        }
    }

    /// Polls every write once and gives those that ended.
    pub(super) fn poll(&mut self, agent: &Agent, mut ended: impl FnMut(&Write, Outcome)) {
        self.in_flight.retain(|transfer| match agent.get_xfer_status(&transfer.request) {
            Ok(XferStatus::InProgress) => true,
            Ok(XferStatus::Success) => {
                ended(&transfer.write, Outcome::Done);
                false
            }
            // An error is an end: NIXL has nothing in flight for this request any more.
            Err(error) => {
                ended(&transfer.write, Outcome::PeerFailed(error.to_string()));
                false
            }
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether NIXL may still read this memory.
    pub(super) fn uses(&self, region: RegionId) -> bool {
        self.in_flight.iter().any(|transfer| transfer.write.region == region)
    }
}
