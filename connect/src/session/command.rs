//! What a session's thread can be asked to do. Data only.

use std::sync::Arc;
use std::sync::mpsc;

use super::SessionError;
use super::endpoint::{Endpoint, EndpointId};
use crate::memory::Arena;
use crate::metadata::{CheckedMetadata, MemoryKind};

pub(super) type Reply<T> = mpsc::Sender<Result<T, SessionError>>;

/// A registered arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RegionId(pub(super) u64);

/// One write of contiguous bytes into a peer's memory, followed by a notification.
#[derive(Debug)]
pub(crate) struct Write {
    /// Who is told of its end.
    pub(crate) endpoint: EndpointId,
    /// Repeated to the endpoint.
    pub(crate) token: u64,
    /// A peer that was loaded.
    pub(crate) peer: Arc<str>,
    /// The registered arena that holds the local bytes.
    pub(crate) region: RegionId,
    /// Address of the local bytes.
    pub(crate) local: usize,
    /// Address in the peer's process.
    pub(crate) remote: usize,
    /// Number of bytes.
    pub(crate) length: usize,
    /// Delivered to the peer after the bytes.
    pub(crate) message: Vec<u8>,
}

pub(super) enum Command {
    CreateBackend(Reply<()>),
    MemoryKinds(Reply<Vec<MemoryKind>>),
    Metadata(Reply<Vec<u8>>),
    LoadPeer(Box<CheckedMetadata>, Reply<()>),
    Register(Arc<Arena>, Reply<RegionId>),
    Release(RegionId),
    Open(Arc<dyn Endpoint>, Reply<EndpointId>),
    Close(EndpointId),
    Write(Box<Write>),
    Notify { peer: Arc<str>, message: Vec<u8> },
    Shutdown(mpsc::Sender<()>),
}
