//! Memory that a workload exposes by itself, as one end of a hop: opened by its RdmaMetadata, read or written in pieces,
//! and told at the very end that all is well.

use std::time::{Duration, Instant};

use nixl_connect::{AbortHandle, RdmaMetadata, RemoteError, RemoteMemory, Session, Staging};
use nixl_transfer_crds::Reason;

use super::failures;
use crate::protocol::Failure;

/// The memory of one workload in the hands of one hop.
pub(super) struct External {
    memory: RemoteMemory,
    /// Longest time that one call may take.
    patience: Duration,
}

impl std::fmt::Debug for External {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("External").field("peer", &self.memory.peer()).finish_non_exhaustive()
    }
}

impl External {
    /// Makes it known to NIXL. `arm` gets what ends a wait for it.
    pub(super) fn open(
        session: &Session,
        metadata: &str,
        patience: Duration,
        arm: impl FnOnce(AbortHandle),
    ) -> Result<Self, Failure> {
        failures::metadata_length(metadata.len())?;
        let offer = RdmaMetadata::parse(metadata).map_err(|error| failures::metadata(&error))?;
        let memory = RemoteMemory::open(session, offer, Staging::default(), Instant::now() + patience)
            .map_err(|error| failed(&error, patience))?;
        arm(memory.abort_handle());
        Ok(Self { memory, patience })
    }

    /// Its length.
    pub(super) fn bytes(&self) -> u64 {
        self.memory.len()
    }

    /// Reads the bytes at `offset`.
    pub(super) fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        let deadline = Instant::now() + self.patience;
        self.memory.read(offset, buffer, deadline).map_err(|error| failed(&error, self.patience))
    }

    /// Writes the bytes at `offset`.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        let deadline = Instant::now() + self.patience;
        self.memory.write(offset, bytes, deadline).map_err(|error| failed(&error, self.patience))
    }

    /// Reads back bytes that were written.
    pub(super) fn read_back(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        let deadline = Instant::now() + self.patience;
        self.memory.read_back(offset, buffer, deadline).map_err(|error| failed(&error, self.patience))
    }

    /// Tells the workload that all is well: the last thing that is done with it.
    pub(super) fn complete(self) -> Result<(), Failure> {
        let patience = self.patience;
        self.memory.complete(Instant::now() + patience).map_err(|error| failed(&error, patience))
    }
}

fn failed(error: &RemoteError, patience: Duration) -> Failure {
    let reason = match error {
        RemoteError::DeadlineExceeded(what) => {
            let message = format!(
                "the workload's memory did not move for {} s, waiting for {what}; look at the workload",
                patience.as_secs()
            );
            return Failure::new(Reason::ProgressDeadlineExceeded, message);
        }
        // An error of a transfer to a peer that was there before: the peer is the likeliest to be gone.
        RemoteError::PeerLost { .. } | RemoteError::Transfer(_) => Reason::PeerLost,
        RemoteError::Kind { .. } | RemoteError::Malformed(_) => Reason::MetadataRejected,
        RemoteError::OutOfRange { .. } => Reason::LengthMismatch,
        RemoteError::Staging(_) => Reason::InsufficientStagingMemory,
        RemoteError::EarlierFailure(earlier) => return failed(earlier, patience),
        _ => Reason::WorkerLost,
    };
    Failure::new(reason, format!("the workload's memory: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        let lost = RemoteError::PeerLost { peer: "p".into(), reason: "r".into() };
        for (error, reason) in [
            (RemoteError::EarlierFailure(Box::new(lost.clone())), Reason::PeerLost),
            (lost, Reason::PeerLost),
            (RemoteError::DeadlineExceeded("x"), Reason::ProgressDeadlineExceeded),
            (RemoteError::Malformed("x"), Reason::MetadataRejected),
            (RemoteError::OutOfRange { offset: 1, length: 1, total: 1 }, Reason::LengthMismatch),
            (RemoteError::Closed, Reason::WorkerLost),
        ] {
            assert_eq!(failed(&error, Duration::from_secs(7)).reason, reason, "{error}");
        }
    }
}
