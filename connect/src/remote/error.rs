//! What can go wrong with the memory of a peer. A failure of the peer or of a transfer stays, and every later call gives it.

use crate::metadata::OperationKind;
use crate::session::SessionError;
use crate::waiting::Fault;

/// Why a call on a [`RemoteMemory`](crate::RemoteMemory) was refused, or failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// Reading from memory that is offered to be written, or the other way round. Nothing has moved.
    #[error("the memory is offered for {offered}, and this call is a {needed}")]
    Kind {
        /// What the metadata says.
        offered: OperationKind,
        /// What the call would do.
        needed: OperationKind,
    },
    /// A range that does not lie in the memory. Nothing has moved.
    #[error("{length} bytes at {offset} do not lie in memory of {total} bytes")]
    OutOfRange {
        /// Where the range begins.
        offset: u64,
        /// Its length.
        length: usize,
        /// The length of the memory.
        total: u64,
    },
    /// The metadata names memory that cannot be one sequence of bytes.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// A call that this side's caller must not make, such as one with no staging memory.
    #[error("misuse: {0}")]
    Misuse(&'static str),
    /// The peer's process died or cannot be reached. Retry with a new peer.
    #[error("peer {peer} is lost: {reason}")]
    PeerLost {
        /// Its agent name.
        peer: String,
        /// What was noticed.
        reason: String,
    },
    /// The deadline of the call has passed. The same call may be made again; but see
    /// [`RemoteMemory::complete`](crate::RemoteMemory::complete).
    #[error("deadline exceeded while waiting for {0}")]
    DeadlineExceeded(&'static str),
    /// NIXL refused a transfer, or failed to post it, for a reason on this side.
    #[error("a transfer could not be posted: {0}")]
    Transfer(String),
    /// Aborted on this side, or the session has ended.
    #[error("the use of the remote memory is closed")]
    Closed,
    /// The peer is not told that all is well, for a call before this one failed.
    #[error("it cannot be completed, for an earlier call failed: {0}")]
    EarlierFailure(Box<RemoteError>),
    /// NIXL, the operating system or the session on this side.
    #[error(transparent)]
    Session(SessionError),
    /// There is no memory to stage in.
    #[error("no staging memory: {0}")]
    Staging(String),
}

impl RemoteError {
    /// Whether a new attempt, with fresh metadata of a peer, may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::PeerLost { .. }
            | Self::DeadlineExceeded(_)
            | Self::Transfer(_)
            | Self::Session(_)
            | Self::Staging(_) => true,
            Self::Kind { .. }
            | Self::OutOfRange { .. }
            | Self::Malformed(_)
            | Self::Misuse(_)
            | Self::Closed => false,
            Self::EarlierFailure(earlier) => earlier.is_retryable(),
        }
    }

    /// A name for programs that never changes: the variant's.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kind { .. } => "Kind",
            Self::OutOfRange { .. } => "OutOfRange",
            Self::Malformed(_) => "Malformed",
            Self::Misuse(_) => "Misuse",
            Self::PeerLost { .. } => "PeerLost",
            Self::DeadlineExceeded(_) => "DeadlineExceeded",
            Self::Transfer(_) => "Transfer",
            Self::Closed => "Closed",
            Self::EarlierFailure(_) => "EarlierFailure",
            Self::Session(_) => "Session",
            Self::Staging(_) => "Staging",
        }
    }
}

impl Fault for RemoteError {
    fn expired(what: &'static str) -> Self {
        Self::DeadlineExceeded(what)
    }

    fn closed() -> Self {
        Self::Closed
    }
}

impl From<SessionError> for RemoteError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::PeerLost { peer, reason } => Self::PeerLost { peer, reason },
            SessionError::Closed => Self::Closed,
            other => Self::Session(other),
        }
    }
}
