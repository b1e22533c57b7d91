//! Posts transfers to NIXL and polls them; what NIXL has stands in the ledger. Calls NIXL.

use std::sync::Arc;

use nixl_sys::{Agent, Backend, MemType, NixlError, OptArgs, XferDescList, XferOp, XferRequest, XferStatus};

use super::command::{RegionId, Transfer};
use super::endpoint::EndpointId;
use super::ledger::{Ledger, Outcome};
use super::regions::mem_type;
use crate::metadata::{OperationKind, SerializedDescriptor};

pub(super) struct Transfers {
    ledger: Ledger<XferRequest>,
    /// Made once for host memory, which nearly every transfer is about.
    local: XferDescList<'static>,
    remote: XferDescList<'static>,
    options: OptArgs,
}

/// What became of a transfer that was to be posted.
pub(super) enum Posted {
    InFlight,
    /// NIXL was done with it at once.
    Ended(Box<Transfer>),
    /// NIXL did not take it, and never had its memory: something on this side, such as a range outside of the peer's
    /// metadata.
    Refused(Box<Transfer>, NixlError),
    /// NIXL did not take it, and never had its memory: it has dropped the peer.
    PeerGone(Box<Transfer>, NixlError),
    /// NIXL took it and gave an error. With several ranges, or with the notification after the bytes, it may have begun with
    /// the first of them before, and it has no way to ask. So it has all of it for good.
    Stuck(Stuck),
}

/// What must be told of a transfer that NIXL has for good.
pub(super) struct Stuck {
    pub(super) endpoint: EndpointId,
    pub(super) token: u64,
    pub(super) peer: Arc<str>,
    pub(super) regions: Vec<RegionId>,
    pub(super) error: NixlError,
}

impl Transfers {
    pub(super) fn new(backend: &Backend) -> Result<Self, NixlError> {
        let mut options = OptArgs::new()?;
        options.add_backend(backend)?;
        Ok(Self {
            ledger: Ledger::new(),
            local: XferDescList::new(MemType::Dram)?,
            remote: XferDescList::new(MemType::Dram)?,
            options,
        })
    }

    pub(super) fn post(&mut self, agent: &Agent, mut transfer: Box<Transfer>) -> Posted {
        let request = match self.request(agent, &transfer) {
            Ok(request) => request,
            Err(error) => {
                transfer.in_flight.clear();
                // NIXL says the same when it has dropped the peer and when this side cannot do it.
                let is_gone = matches!(error, NixlError::FailedToCreateXferRequest)
                    && !agent.check_remote_metadata(&transfer.peer, Some(&self.remote));
                let refusal = if is_gone { Posted::PeerGone } else { Posted::Refused };
                return refusal(transfer, error);
            }
        };
        match agent.post_xfer_req(&request, Some(&self.options)) {
            Ok(true) => {
                self.ledger.fly(transfer, request);
                Posted::InFlight
            }
            Ok(false) => Posted::Ended(Ledger::close(transfer, request)),
            Err(error) => {
                let stuck = Stuck {
                    endpoint: transfer.endpoint,
                    token: transfer.token,
                    peer: Arc::clone(&transfer.peer),
                    regions: transfer.local.iter().map(|local| local.region).collect(),
                    error,
                };
                self.ledger.keep(transfer, request);
                Posted::Stuck(stuck)
            }
        }
    }

    /// All that NIXL must know of the transfer. It has begun nothing yet.
    fn request(&mut self, agent: &Agent, transfer: &Transfer) -> Result<XferRequest, NixlError> {
        fill(&mut self.local, transfer.local.iter().map(|local| &local.memory))?;
        fill(&mut self.remote, transfer.remote.iter())?;
        if let Some(message) = &transfer.message {
            self.options.set_notification_message(message)?;
        }
        self.options.set_has_notification(transfer.message.is_some())?;
        let operation = match transfer.kind {
            OperationKind::Read => XferOp::Read,
            OperationKind::Write => XferOp::Write,
        };
        agent.create_xfer_req(operation, &self.local, &self.remote, &transfer.peer, Some(&self.options))
    }

    /// Polls every transfer in flight once and gives those that ended.
    pub(super) fn poll(&mut self, agent: &Agent, ended: impl FnMut(&Transfer, Outcome)) {
        let ask = |request: &XferRequest| match agent.get_xfer_status(request) {
            Ok(XferStatus::InProgress) => None,
            Ok(XferStatus::Success) => Some(Outcome::Done),
            // An error is an end: the connection failed, and with it all that UCX had on it.
            Err(error) => Some(Outcome::PeerFailed(error.to_string())),
        };
        self.ledger.poll(ask, ended);
    }

    /// Transfers whose end is awaited.
    pub(super) fn in_flight(&self) -> usize {
        self.ledger.in_flight()
    }

    /// Whether NIXL has any transfer, in flight or for good.
    pub(super) fn is_empty(&self) -> bool {
        self.ledger.is_empty()
    }

    /// Whether NIXL may still use this memory.
    pub(super) fn uses(&self, region: RegionId) -> bool {
        self.ledger.uses(region)
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
