//! The node's staging memory, shared out to hops. A hop takes what its slots need before it takes a worker and gives
//! it back when that worker's memory is gone.

use std::{sync::Arc, time::Duration};

use nixl_transfer_crds::{Reason, Transport};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::protocol::Failure;

/// What the semaphore counts.
const UNIT: u64 = 64 << 10;

/// The budget of a node.
#[derive(Clone, Debug)]
pub struct Staging {
    total: u64,
    units: Arc<Semaphore>,
}

/// Staging memory of one hop; given back on drop.
#[derive(Debug)]
pub struct Share {
    /// Bytes of it.
    pub bytes: u64,
    _permit: OwnedSemaphorePermit,
}

impl Staging {
    /// A budget of so many bytes.
    pub fn new(total: u64) -> Self {
        let units = usize::try_from(total / UNIT).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { total, units: Arc::new(Semaphore::new(units)) }
    }

    /// What a hop with that transport needs on each end.
    pub fn need(transport: &Transport) -> Result<u64, Failure> {
        let invalid = |message: String| Failure::new(Reason::InvalidSpec, message);
        let chunk = transport
            .chunk_size
            .bytes()
            .map_err(|error| invalid(format!("spec.transport.chunkSize: {error}")))?;
        let slots = u64::try_from(transport.in_flight)
            .map_err(|_| invalid("spec.transport.inFlight is negative".into()))?;
        chunk
            .checked_mul(slots)
            .ok_or_else(|| invalid("spec.transport: chunkSize times inFlight overflows".into()))
    }

    /// Takes the share of one end of a hop; waits while other hops have it, but not longer than `within`. With
    /// `both_ends` the other end takes as much of the same memory, and both must fit.
    pub async fn take(
        &self,
        transport: &Transport,
        both_ends: bool,
        within: Duration,
    ) -> Result<Share, Failure> {
        let bytes = Self::need(transport)?;
        let too_small = |what: &str| {
            Failure::new(
                Reason::InsufficientStagingMemory,
                format!(
                    "spec.transport: chunkSize {} times inFlight {} is {bytes} bytes of staging memory, {what} {}; \
                     lower one of them, or raise `staging` in the agent's configuration",
                    transport.chunk_size,
                    transport.in_flight,
                    nixl_transfer_crds::Quantity::from_bytes(self.total),
                ),
            )
        };
        if bytes > self.total {
            return Err(too_small("more than this node's"));
        }
        if both_ends && bytes > self.total / 2 {
            return Err(too_small(
                "for each end of a hop within one node, and twice that is more than this node's",
            ));
        }
        let units =
            u32::try_from(bytes.div_ceil(UNIT)).map_err(|_| too_small("more than can be counted of"))?;
        let permit = tokio::time::timeout(within, self.units.clone().acquire_many_owned(units));
        match permit.await {
            Ok(Ok(permit)) => Ok(Share { bytes, _permit: permit }),
            Ok(Err(_)) | Err(_) => Err(Failure::new(
                Reason::DestinationBusy,
                format!(
                    "waited {} s for {bytes} bytes of staging memory that other transfers hold",
                    within.as_secs()
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nixl_transfer_crds::Quantity;

    fn transport(chunk: u64, in_flight: i32) -> Transport {
        Transport { chunk_size: Quantity::from_bytes(chunk), in_flight, ..Transport::default() }
    }

    #[tokio::test]
    async fn shares_are_given_back_and_never_exceed_the_total() {
        let staging = Staging::new(16 << 20);
        let soon = Duration::from_millis(10);
        let first = staging.take(&transport(1 << 20, 8), true, soon).await.unwrap();
        let second = staging.take(&transport(1 << 20, 8), true, soon).await.unwrap();
        assert_eq!(
            staging.take(&transport(64 << 10, 1), false, soon).await.unwrap_err().reason,
            Reason::DestinationBusy
        );
        drop((first, second));
        staging.take(&transport(1 << 20, 16), false, soon).await.unwrap();
        // Both ends would wait for each other until the deadline.
        let twice = staging.take(&transport(1 << 20, 9), true, soon).await.unwrap_err();
        assert_eq!(twice.reason, Reason::InsufficientStagingMemory);
        let huge = staging.take(&transport(1 << 20, 17), false, soon).await.unwrap_err();
        assert_eq!(huge.reason, Reason::InsufficientStagingMemory);
        assert!(huge.message.contains("16Mi") && huge.message.contains("chunkSize 1Mi"), "{}", huge.message);
    }
}
