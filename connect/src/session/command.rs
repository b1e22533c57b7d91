//! What a session's thread can be asked to do. Data only.

use std::sync::Arc;
use std::sync::mpsc;

use super::SessionError;
use super::endpoint::{Endpoint, EndpointId};
use super::regions::Backing;
use crate::memory::InFlight;
use crate::metadata::{AgentMetadata, CheckedMetadata, MemoryKind, OperationKind, SerializedDescriptor};

pub(super) type Reply<T> = mpsc::Sender<Result<T, SessionError>>;

/// Takes an answer on the session's thread. One that is dropped without, because the session ended before, says
/// [`SessionError::Closed`].
pub(crate) struct Answer<T>(Option<Take<T>>);

type Take<T> = Box<dyn FnOnce(Result<T, SessionError>) + Send>;

impl<T> Answer<T> {
    pub(crate) fn new(take: impl FnOnce(Result<T, SessionError>) + Send + 'static) -> Self {
        Self(Some(Box::new(take)))
    }

    pub(super) fn give(mut self, result: Result<T, SessionError>) {
        if let Some(take) = self.0.take() {
            take(result);
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(take) = self.0.take() {
            take(Err(SessionError::Closed));
        }
    }
}

/// A hold on registered memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RegionId(pub(super) u64);

/// A range of local memory within a registered region.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Local {
    pub(crate) region: RegionId,
    pub(crate) memory: SerializedDescriptor,
}

/// One transfer between ranges of this process and as many ranges of the same sizes of a peer.
pub(crate) struct Transfer {
    /// Who is told of its end.
    pub(crate) endpoint: EndpointId,
    /// Repeated to the endpoint.
    pub(crate) token: u64,
    /// Read from the peer or write to it.
    pub(crate) kind: OperationKind,
    /// A peer that was loaded.
    pub(crate) peer: Arc<str>,
    /// All of one kind of memory.
    pub(crate) local: Vec<Local>,
    /// Addresses in the peer's process, all of one kind of memory.
    pub(crate) remote: Vec<SerializedDescriptor>,
    /// Delivered to the peer when the bytes are known to be there, which costs a way back and a way there again.
    pub(crate) message: Option<Vec<u8>>,
    /// Dropped when NIXL is done with the local memory, before the endpoint hears of it.
    pub(crate) in_flight: Vec<InFlight>,
}

/// All that an active operation needs, done in one go: memory registered, peer loaded, transfer posted.
pub(crate) struct Begin {
    pub(crate) endpoint: Arc<dyn Endpoint>,
    pub(crate) kind: OperationKind,
    pub(crate) local: Vec<Arc<dyn Backing>>,
    pub(crate) remote: Vec<SerializedDescriptor>,
    pub(crate) peer: CheckedMetadata,
    pub(crate) message: Vec<u8>,
    pub(crate) in_flight: Vec<InFlight>,
    /// Called when the transfer is posted, or never will be.
    pub(crate) answer: Answer<Opened>,
}

impl Begin {
    /// NIXL never had its memory, so that is free before anybody hears of the refusal.
    pub(super) fn refuse(self, error: SessionError) {
        drop(self.in_flight);
        self.answer.give(Err(error));
    }
}

/// All that the use of a peer's memory in parts needs: staging memory registered, that memory made known and kept so until
/// the endpoint is closed. Nothing moves by it.
pub(crate) struct Attach {
    pub(crate) endpoint: Arc<dyn Endpoint>,
    /// The staging memory.
    pub(crate) local: Arc<dyn Backing>,
    /// What of the peer's memory will be used.
    pub(crate) remote: Vec<SerializedDescriptor>,
    pub(crate) peer: CheckedMetadata,
    pub(crate) answer: Answer<Opened>,
}

/// All that a passive operation needs: memory registered, notifications with a key expected.
pub(crate) struct Offer {
    pub(crate) endpoint: Arc<dyn Endpoint>,
    /// The notification that ends it.
    pub(crate) key: Vec<u8>,
    pub(crate) local: Vec<Arc<dyn Backing>>,
    /// Gets the agent's metadata too, with no memory in it but this.
    pub(crate) answer: Answer<(Opened, AgentMetadata)>,
}

/// What an operation or remote memory holds in the session, to be given back by [`Command::Close`] and [`Command::Release`].
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) endpoint: EndpointId,
    pub(crate) regions: Vec<RegionId>,
}

/// How much the thread holds at this moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Census {
    pub(crate) endpoints: usize,
    pub(crate) regions: usize,
    pub(crate) in_flight: usize,
    pub(crate) peers: usize,
    pub(crate) peer_regions: usize,
}

#[cfg(test)]
impl Opened {
    /// For the tests of those that keep it: no session knows it.
    pub(crate) fn numbered(number: u64) -> Self {
        Self { endpoint: EndpointId(number), regions: Vec::new() }
    }
}

pub(super) enum Command {
    CreateBackend(Reply<()>),
    MemoryKinds(Reply<Vec<MemoryKind>>),
    Metadata(Reply<Vec<u8>>),
    /// With all memory of the peer, for as long as the session lives.
    LoadPeer(Box<CheckedMetadata>, Reply<()>),
    /// Only so far that it can be notified.
    MeetPeer(Box<CheckedMetadata>, Answer<()>),
    Register(Arc<dyn Backing>, Reply<RegionId>),
    Release(RegionId),
    Open(Arc<dyn Endpoint>, Reply<EndpointId>),
    Close(EndpointId),
    Begin(Box<Begin>),
    /// An operation that may be waiting for its peer was dropped: those behind it are looked at.
    Unwanted,
    Offer(Box<Offer>),
    Attach(Box<Attach>),
    Post(Box<Transfer>),
    Notify {
        peer: Arc<str>,
        message: Vec<u8>,
    },
    Census(Reply<Census>),
    Shutdown(mpsc::Sender<()>),
}
