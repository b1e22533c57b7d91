//! What can go wrong with an operation, and what its caller can do about it.

use super::super::metadata::{MAX_DESCRIPTORS, MetadataError, OperationKind};
use crate::session::SessionError;
use crate::status::OperationStatus;

/// Why an operation was refused, or failed. [`OperationError::class`] says what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OperationError {
    /// No local descriptors.
    #[error("an operation needs at least one local descriptor")]
    NoDescriptors,
    /// More local descriptors than an `RdmaMetadata` can hold.
    #[error("{0} local descriptors; at most {MAX_DESCRIPTORS} are possible")]
    TooManyDescriptors(usize),
    /// The metadata is of the other kind of operation: a Read needs a Readable's, a Write a Writable's.
    #[error(
        "the metadata offers {offered}, this operation needs {needed}: Read goes with Readable, Write with Writable"
    )]
    Kind {
        /// What the metadata says.
        offered: OperationKind,
        /// What the operation is.
        needed: OperationKind,
    },
    /// The two lists differ in length.
    #[error("{local} local descriptors, {remote} remote ones: both lists need the same length")]
    Count {
        /// Local descriptors.
        local: usize,
        /// Descriptors in the metadata.
        remote: usize,
    },
    /// Two descriptors at the same place differ in size.
    #[error("descriptors[{index}] has {local} bytes here and {remote} at the peer: both need the same size")]
    Size {
        /// Place in both lists, from 0.
        index: usize,
        /// Bytes here.
        local: u64,
        /// Bytes in the metadata.
        remote: u64,
    },
    /// The descriptors of one side lie in different kinds of memory.
    #[error("descriptors[{index}] of the {side} side is in another kind of memory than the first")]
    MixedMemory {
        /// `local` or `remote`.
        side: &'static str,
        /// Place in the list, from 0.
        index: usize,
    },
    /// A local descriptor is registered with another connector.
    #[error("descriptors[{0}] is registered with another connector; deregister it there first")]
    OtherConnector(usize),
    /// The metadata is of this connector's own agent.
    #[error("the metadata was made by this very connector; NIXL moves bytes between two agents only")]
    OwnAgent,
    /// The operation has ended before; its status is unchanged.
    #[error("the operation has ended as {0} and cannot be cancelled")]
    Ended(OperationStatus),
    /// Results exist when the status is `DONE` only.
    #[error("the operation is {0}, not DONE: it has no results")]
    NotComplete(OperationStatus),
    /// It was cancelled.
    #[error("the operation was cancelled")]
    Cancelled,
    /// The wait is over, the operation goes on.
    #[error("{0} did not happen before the deadline")]
    DeadlineExceeded(&'static str),
    /// The peer died or cannot be reached, noticed by this operation.
    #[error("peer {peer} is lost: {reason}")]
    PeerLost {
        /// The peer's agent name.
        peer: String,
        /// What was noticed.
        reason: String,
    },
    /// The metadata is of a peer that was lost before, or whose name another process has taken.
    #[error("the metadata of peer {peer} is stale: {reason}")]
    StalePeer {
        /// The peer's agent name.
        peer: String,
        /// What was noticed, and when.
        reason: String,
    },
    /// Another agent than the expected one used the notification key.
    #[error("agent {found} completed an operation that was meant for {expected}")]
    Sender {
        /// Whom [`expect_sender`](crate::PassiveOperation::expect_sender) named.
        expected: String,
        /// Who it was.
        found: String,
    },
    /// This agent's own metadata cannot be put on the wire.
    #[error("own metadata: {0}")]
    Metadata(MetadataError),
    /// NIXL, the operating system or the session on this side.
    #[error(transparent)]
    Session(SessionError),
}

/// What an error asks of the caller.
///
/// ```
/// use nixl_connect::{ErrorClass, OperationError};
///
/// /// Whether the whole exchange, with metadata made anew, may be tried again.
/// fn try_again(error: &OperationError) -> bool {
///     matches!(error.class(), ErrorClass::Retryable | ErrorClass::StalePeer)
/// }
/// assert!(try_again(&OperationError::DeadlineExceeded("the end of the transfer")));
/// assert!(!try_again(&OperationError::NoDescriptors));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The call was wrong: the same call fails again.
    Mistake,
    /// The peer is not the one that made the metadata any more: get new metadata, and take a new [`Connector`](crate::Connector)
    /// if the peer comes back under its old name.
    StalePeer,
    /// May succeed with fresh metadata, or with more time.
    Retryable,
    /// The caller ended it.
    Cancelled,
    /// Something on this side; see the error.
    Local,
}

impl OperationError {
    /// What the error asks of the caller.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NoDescriptors
            | Self::TooManyDescriptors(_)
            | Self::Kind { .. }
            | Self::Count { .. }
            | Self::Size { .. }
            | Self::MixedMemory { .. }
            | Self::OtherConnector(_)
            | Self::OwnAgent
            | Self::Ended(_)
            | Self::NotComplete(_) => ErrorClass::Mistake,
            Self::StalePeer { .. } => ErrorClass::StalePeer,
            Self::PeerLost { .. } | Self::DeadlineExceeded(_) | Self::Sender { .. } => ErrorClass::Retryable,
            Self::Cancelled => ErrorClass::Cancelled,
            Self::Metadata(_) | Self::Session(_) => ErrorClass::Local,
        }
    }

    /// A name for programs that never changes: the variant's.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoDescriptors => "NoDescriptors",
            Self::TooManyDescriptors(_) => "TooManyDescriptors",
            Self::Kind { .. } => "Kind",
            Self::Count { .. } => "Count",
            Self::Size { .. } => "Size",
            Self::MixedMemory { .. } => "MixedMemory",
            Self::OtherConnector(_) => "OtherConnector",
            Self::OwnAgent => "OwnAgent",
            Self::Ended(_) => "Ended",
            Self::NotComplete(_) => "NotComplete",
            Self::Cancelled => "Cancelled",
            Self::DeadlineExceeded(_) => "DeadlineExceeded",
            Self::PeerLost { .. } => "PeerLost",
            Self::StalePeer { .. } => "StalePeer",
            Self::Sender { .. } => "Sender",
            Self::Metadata(_) => "Metadata",
            Self::Session(_) => "Session",
        }
    }
}

impl From<SessionError> for OperationError {
    /// What a session says before a transfer is posted: a lost peer was lost before.
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::PeerLost { peer, reason } => Self::StalePeer { peer, reason },
            SessionError::PeerReplaced(peer) => Self::StalePeer {
                peer,
                reason: "another process has taken its name; take a new connector for it".to_owned(),
            },
            SessionError::OwnAgent => Self::OwnAgent,
            other => Self::Session(other),
        }
    }
}

/// An operation that was not begun, with the memory that was meant for it.
#[derive(Debug)]
pub struct Refused<D> {
    /// Why.
    pub error: OperationError,
    /// The local descriptors, as they were given; empty when NIXL may still use them, which keeps them mapped.
    pub descriptors: Vec<D>,
}

impl<D> std::fmt::Display for Refused<D> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(formatter)
    }
}

impl<D: std::fmt::Debug> std::error::Error for Refused<D> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl<D> From<Refused<D>> for OperationError {
    fn from(refused: Refused<D>) -> Self {
        refused.error
    }
}
