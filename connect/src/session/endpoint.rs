//! What the session tells those above it: streams, operations and remote memory. All of it is called on the session's thread, so an
//! endpoint never blocks and never calls NIXL; it may send commands.

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

/// Someone who waits for notifications and for transfers to end.
pub(crate) trait Endpoint: Send + Sync {
    /// Whether anybody wants what the session has not begun yet.
    fn is_wanted(&self) -> bool {
        true
    }
    /// Whether nothing can happen to it any more. The session closes it then by itself, and looks for no news on its behalf.
    fn is_over(&self) -> bool {
        false
    }
    /// A notification came from the agent `peer`.
    fn notified(&self, peer: &str, message: &[u8]) -> Claim;
    /// A transfer of this endpoint is complete, and its notification handed to the network. NIXL has no hold on its
    /// memory any more.
    fn transferred(&self, token: u64);
    /// A transfer of this endpoint could not be posted, for a reason on this side. NIXL never had its memory.
    fn refused(&self, token: u64, reason: &str);
    /// A transfer of this endpoint ended with a failure of its peer. NIXL has no hold on its memory any more.
    /// [`Endpoint::lost`] follows.
    fn failed(&self, token: u64);
    /// NIXL failed to post a transfer of this endpoint, and may have begun it all the same: it has the memory until the
    /// process ends, and nothing more will be heard of the transfer. [`Endpoint::lost`] came before if it was the peer's
    /// failure; else `reason` is one on this side.
    fn stuck(&self, token: u64, reason: &str);
    /// The peer with this name is gone. Transfers that are in flight stay so until they end by themselves.
    fn lost(&self, peer: &str, reason: &str);
    /// Comes about once a second while the endpoint is open.
    fn tick(&self, now: Instant);
    /// The session ends.
    fn closed(&self);
}
