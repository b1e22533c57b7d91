//! What can go wrong with a session, as its callers see it.

/// Why a session cannot do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    /// An agent name that other agents could not take.
    #[error("{0:?} is no name for an agent: 1 to 256 bytes of printable text")]
    Name(String),
    /// The operating system gave no thread.
    #[error("no thread for the NIXL session: {0}")]
    Thread(String),
    /// A call into NIXL failed for a reason on this side.
    #[error("NIXL could not {call}: {reason}")]
    Nixl {
        /// What was tried.
        call: &'static str,
        /// NIXL's words.
        reason: String,
    },
    /// A step that needs the backend came before it, or the backend was created twice.
    #[error("the backend {0}")]
    Backend(&'static str),
    /// NIXL's metadata of our own agent is not what this crate can put on the wire.
    #[error("this agent's own metadata cannot be used: {0}")]
    OwnMetadata(String),
    /// The peer does not answer any more, or never did.
    #[error("peer {peer} is lost: {reason}")]
    PeerLost {
        /// The peer's agent name.
        peer: String,
        /// What was noticed.
        reason: String,
    },
    /// Another process has taken the name of a peer that this agent knows: it was restarted under its old name.
    #[error("peer {0} was replaced by another process of the same name: take a new session for it")]
    PeerReplaced(String),
    /// The thread is busy for too long; NIXL or UCX hangs.
    #[error("the NIXL session did not answer {0} in time")]
    NoAnswer(&'static str),
    /// A stream of this session, or a transfer that is in flight, may use memory that the peer has registered anew.
    #[error("peer {0} has registered memory anew that a stream or transfer of this session may still use")]
    PeerBusy(String),
    /// The metadata is this very agent's: an agent cannot be its own peer.
    #[error("the metadata is this agent's own: an agent cannot be its own peer")]
    OwnAgent,
    /// The notification key is taken by another operation.
    #[error("the notification key is in use by another operation of this agent")]
    KeyInUse,
    /// The descriptor is registered with another connector.
    #[error("the descriptor is registered with another connector; deregister it there first")]
    OtherSession,
    /// The connector has other clones, or operations that live.
    #[error("the connector is in use by other clones or operations")]
    InUse,
    /// The session has ended.
    #[error("the NIXL session is closed")]
    Closed,
}

impl SessionError {
    pub(super) fn nixl(call: &'static str, error: &nixl_sys::NixlError) -> Self {
        Self::Nixl { call, reason: error.to_string() }
    }
}
