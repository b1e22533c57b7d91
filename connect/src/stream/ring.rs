//! The memory of a stream's ring: mapped, and registered with the session. Waits for the session's thread.

use super::StreamError;
use crate::memory::{Ring, Slot};
use crate::session::{Link, RegionId};

/// A ring of these measures, registered as one region, which keeps the agent's metadata short.
pub(super) fn open(
    link: &Link,
    slots: usize,
    chunk_size: usize,
) -> Result<(Ring, RegionId, Vec<Slot>), StreamError> {
    let ring = Ring::new(slots, chunk_size).map_err(StreamError::Misuse)?;
    let (arena, slots) =
        ring.map().map_err(|error| StreamError::Session(format!("no staging memory: {error}")))?;
    Ok((ring, link.register(arena)?, slots))
}
