//! How a stream can fail. The first failure is kept and given to every later call.

use crate::metadata::MetadataError;
use crate::session::SessionError;
use crate::waiting::Fault;

/// Why a stream stopped or refused a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The other end's process died or cannot be reached. Retry with a new peer.
    #[error("peer {peer} is lost: {reason}")]
    PeerLost {
        /// Its agent name.
        peer: String,
        /// What was noticed.
        reason: String,
    },
    /// The deadline of the call has passed. The stream itself is whole: the call may be made again.
    #[error("deadline exceeded while waiting for {0}")]
    DeadlineExceeded(&'static str),
    /// One chunk arrived damaged more often than it may be sent again.
    #[error("chunk {sequence} arrived damaged {attempts} times")]
    Integrity {
        /// The chunk's number, from 0.
        sequence: u64,
        /// How often it came.
        attempts: u32,
    },
    /// The other end broke the protocol, or offers a ring that does not fit this one.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Aborted on this side, or the session has ended.
    #[error("the stream is closed")]
    Closed,
    /// A call that this side's caller must not make, such as a chunk longer than the slot.
    #[error("misuse: {0}")]
    Misuse(&'static str),
    /// The session could not do what the stream needs.
    #[error("session: {0}")]
    Session(String),
}

impl StreamError {
    /// Whether a new attempt with a fresh peer may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::PeerLost { .. } | Self::DeadlineExceeded(_) | Self::Integrity { .. } | Self::Session(_) => {
                true
            }
            Self::Malformed(_) | Self::Closed | Self::Misuse(_) => false,
        }
    }
}

impl Fault for StreamError {
    fn expired(what: &'static str) -> Self {
        Self::DeadlineExceeded(what)
    }

    fn closed() -> Self {
        Self::Closed
    }
}

impl From<SessionError> for StreamError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::PeerLost { peer, reason } => Self::PeerLost { peer, reason },
            SessionError::Closed => Self::Closed,
            SessionError::NoAnswer(what) => Self::DeadlineExceeded(what),
            other => Self::Session(other.to_string()),
        }
    }
}

impl From<MetadataError> for StreamError {
    fn from(error: MetadataError) -> Self {
        Self::Malformed(error.to_string())
    }
}
