//! What the session tells those above it: the stream today, the four operations next to it. All of it is called on the
//! session's thread, so an endpoint never blocks and never calls NIXL; it may send commands.

use std::time::Instant;

/// An endpoint's number in its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct EndpointId(pub(super) u64);

/// Whether a notification was this endpoint's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Taken; nobody else is asked.
    Taken,
    /// Another's.
    Foreign,
}

/// Someone who waits for notifications and for writes to end.
pub(crate) trait Endpoint: Send + Sync {
    /// A notification came from the agent `peer`.
    fn notified(&self, peer: &str, message: &[u8]) -> Claim;
    /// A write of this endpoint has left this side: its bytes are no longer read by NIXL.
    fn written(&self, token: u64);
    /// A write of this endpoint could not be posted, for a reason on this side.
    fn refused(&self, token: u64, reason: &str);
    /// The peer with this name is gone. Its writes that are in flight stay so until the process ends.
    fn lost(&self, peer: &str, reason: &str);
    /// Comes about once a second while the endpoint is open.
    fn tick(&self, now: Instant);
    /// The session ends.
    fn closed(&self);
}
