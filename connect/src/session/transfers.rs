//! Transfers in flight: posted to NIXL and polled until they end. None is ever dropped before its end. Calls NIXL.

use nixl_sys::{Agent, Backend, MemType, NixlError, OptArgs, XferDescList, XferOp, XferRequest, XferStatus};

use super::command::{RegionId, Transfer};
use super::regions::mem_type;
use crate::metadata::{OperationKind, SerializedDescriptor};

struct InFlight {
    transfer: Box<Transfer>,
    request: XferRequest,
}

/// What became of a transfer.
pub(super) enum Outcome {
    Done,
    /// NIXL's C API has one error for everything that can happen to a peer.
    PeerFailed(String),
}

pub(super) struct Transfers {
    in_flight: Vec<InFlight>,
    /// Made once for host memory, which nearly every transfer is about.
    local: XferDescList<'static>,
    remote: XferDescList<'static>,
    options: OptArgs,
}

/// Why a transfer could not be posted.
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

    /// Posts a transfer. `Ok(Some)` gives it back when NIXL was done with it at once.
    pub(super) fn post(
        &mut self,
        agent: &Agent,
        mut transfer: Box<Transfer>,
    ) -> Result<Option<Box<Transfer>>, (Box<Transfer>, PostError)> {
        match self.try_post(agent, &transfer) {
            Ok((_, false)) => {
                transfer.in_flight.clear();
                Ok(Some(transfer))
            }
            Ok((request, true)) => {
                self.in_flight.push(InFlight { transfer, request });
                Ok(None)
            }
            Err(error) => {
                transfer.in_flight.clear();
                Err((transfer, error))
            }
        }
    }

    fn try_post(&mut self, agent: &Agent, transfer: &Transfer) -> Result<(XferRequest, bool), PostError> {
        fill(&mut self.local, transfer.local.iter().map(|local| &local.memory))
            .map_err(PostError::Refused)?;
        fill(&mut self.remote, transfer.remote.iter()).map_err(PostError::Refused)?;
        self.options.set_notification_message(&transfer.message).map_err(PostError::Refused)?;
        self.options.set_has_notification(true).map_err(PostError::Refused)?;
        let operation = match transfer.kind {
            OperationKind::Read => XferOp::Read,
            OperationKind::Write => XferOp::Write,
        };
        let request = agent
            .create_xfer_req(operation, &self.local, &self.remote, &transfer.peer, Some(&self.options))
            .map_err(|error| match error {
                // NIXL says the same when it has dropped the peer and when this side cannot do it.
                NixlError::FailedToCreateXferRequest
                    if !agent.check_remote_metadata(&transfer.peer, Some(&self.remote)) =>
                {
                    PostError::PeerFailed(error)
                }
                other => PostError::Refused(other),
            })?;
        match agent.post_xfer_req(&request, Some(&self.options)) {
            Ok(in_progress) => Ok((request, in_progress)),
            Err(error @ NixlError::InvalidParam) => Err(PostError::Refused(error)),
            Err(error) => Err(PostError::PeerFailed(error)),
        }
    }

    /// Polls every transfer once and gives those that ended.
    pub(super) fn poll(&mut self, agent: &Agent, mut ended: impl FnMut(&Transfer, Outcome)) {
        self.in_flight.retain_mut(|in_flight| {
            let outcome = match agent.get_xfer_status(&in_flight.request) {
                Ok(XferStatus::InProgress) => return true,
                Ok(XferStatus::Success) => Outcome::Done,
                // An error is an end: NIXL has nothing in flight for this request any more.
                Err(error) => Outcome::PeerFailed(error.to_string()),
            };
            in_flight.transfer.in_flight.clear();
            ended(&in_flight.transfer, outcome);
            false
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether NIXL may still use this memory.
    pub(super) fn uses(&self, region: RegionId) -> bool {
        self.in_flight
            .iter()
            .any(|in_flight| in_flight.transfer.local.iter().any(|local| local.region == region))
    }
}

/// Puts the ranges, all of one kind of memory, into a list that is made anew only when the kind changes.
fn fill<'a>(
    list: &mut XferDescList<'static>,
    ranges: impl Iterator<Item = &'a SerializedDescriptor> + Clone,
) -> Result<(), NixlError> {
    let kind = ranges.clone().next().map_or(MemType::Dram, |first| mem_type(first.device));
    if list.get_type()? == kind {
        list.clear();
    } else {
        *list = XferDescList::new(kind)?;
    }
    for range in ranges {
        list.add_desc(range.ptr as usize, range.size as usize, range.device.index());
    }
    Ok(())
}
