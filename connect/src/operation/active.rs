//! The active side of a pair: begins at creation, moves the bytes, tells the other side.

use std::sync::Arc;
use std::time::Instant;

use super::completion::Completion;
use super::error::{OperationError, Refused};
use super::plan::check_pair;
use super::starting::{Starting, sealed};
use super::waiting::Waiting;
use crate::connector::Connector;
use crate::descriptor::{Descriptor, Locals};
use crate::metadata::{OperationKind, RdmaMetadata};
use crate::session::{Answer, Begin, Claim, Endpoint, Link, Opened, SessionError};
use crate::status::OperationStatus;

/// Reads a peer's [`ReadableOperation`](crate::ReadableOperation) into descriptors that it owns until it is over. Made by
/// [`Connector::begin_read`]; the methods are those of [`ActiveOperation`].
///
/// # Example
/// ```no_run
/// use std::time::{Duration, Instant};
///
/// use nixl_connect::{Connector, Descriptor, RdmaMetadata};
///
/// fn read(connector: &Connector, metadata: &str) -> Result<Descriptor, Box<dyn std::error::Error>> {
///     let metadata = RdmaMetadata::parse(metadata)?;
///     let size = usize::try_from(metadata.descriptors()[0].size)?;
///     let operation = connector.begin_read(metadata, Descriptor::zeroed(size)?).blocking()?;
///     operation.wait_for_completion(Instant::now() + Duration::from_secs(60)).blocking()?;
///     let mut memory = operation.into_descriptors().map_err(|_| "still in use")?;
///     Ok(memory.remove(0))
/// }
/// ```
pub type ReadOperation = ActiveOperation<Descriptor>;
/// Writes descriptors into a peer's [`WritableOperation`](crate::WritableOperation). Others may read them meanwhile. Made by
/// [`Connector::begin_write`]; the methods are those of [`ActiveOperation`].
///
/// # Example
/// Several pieces in one operation; both sides have as many, of the same sizes, in the same order.
/// ```no_run
/// use std::sync::Arc;
/// use std::time::{Duration, Instant};
///
/// use nixl_connect::{Connector, Descriptor, OperationError, RdmaMetadata};
///
/// fn write(connector: &Connector, metadata: RdmaMetadata, pieces: &[Arc<Descriptor>]) -> Result<(), OperationError> {
///     let operation = connector.begin_write(pieces.to_vec(), metadata).blocking()?;
///     operation.wait_for_completion(Instant::now() + Duration::from_secs(60)).blocking()
/// }
/// ```
pub type WriteOperation = ActiveOperation<Arc<Descriptor>>;

/// A [`ReadOperation`] or a [`WriteOperation`]: it begins to move bytes when it is created.
///
/// NIXL cannot take a transfer back. An operation that is cancelled or dropped while it is in flight goes on in the
/// background: its bytes may still arrive, its peer may still be told that it is complete, and its memory stays
/// registered and mapped until NIXL is done with it. With a peer that is stopped rather than dead, that may be as long as
/// the process lives.
///
/// When NIXL takes a transfer and then fails to post it, which a dead peer can cause, it may have begun a part of it, and
/// nobody can say when that ends. The operation fails, and its memory stays registered and mapped until the process ends,
/// counted in [`SessionStatistics::abandoned_bytes`](crate::SessionStatistics::abandoned_bytes).
pub struct ActiveOperation<D> {
    shared: Arc<Shared>,
    local: Vec<D>,
    /// Keeps the session for as long as the operation lives.
    connector: Connector,
}

struct Shared {
    waiting: Waiting,
    peer: Arc<str>,
}

impl<D: AsRef<Descriptor> + Unpin> ActiveOperation<D> {
    pub(crate) fn begin(
        connector: &Connector,
        kind: OperationKind,
        local: Locals<D>,
        remote: RdmaMetadata,
    ) -> Starting<Self> {
        let Locals(local) = local;
        let ranges: Vec<_> = local.iter().map(|local| local.as_ref().serialized()).collect();
        let link = connector.link();
        let possible = check_pair(kind, &ranges, &remote).and_then(|()| {
            let elsewhere = local.iter().position(|local| local.as_ref().is_registered_elsewhere(link));
            elsewhere.map_or(Ok(()), |index| Err(OperationError::OtherConnector(index)))
        });
        if let Err(error) = possible {
            return Starting::new(Err(Refused { error, descriptors: local }));
        }
        let peer: Arc<str> = remote.agent().agent().into();
        let shared = Arc::new(Shared { waiting: Waiting::new(), peer });
        let answer = {
            let (shared, link) = (Arc::clone(&shared), link.clone());
            Answer::new(move |result| shared.opened(result, &link))
        };
        link.begin(Begin {
            endpoint: Arc::clone(&shared) as Arc<dyn Endpoint>,
            kind,
            local: local.iter().map(|local| local.as_ref().backing()).collect(),
            in_flight: local.iter().map(|local| local.as_ref().in_flight()).collect(),
            remote: remote.descriptors().to_vec(),
            message: remote.notification_key().as_bytes().to_vec(),
            peer: remote.into_agent(),
            answer,
        });
        Starting::new(Ok(Self { shared, local, connector: connector.clone() }))
    }

    /// The operation's state at this moment. It never waits.
    pub fn status(&self) -> OperationStatus {
        self.shared.waiting.read(|state| state.status())
    }

    /// The peer's agent name.
    pub fn peer(&self) -> &str {
        &self.shared.peer
    }

    /// Waits until all bytes have moved and the other side's notification is on its way.
    ///
    /// # Errors
    /// `PeerLost` when the peer died or cannot be reached, `Cancelled` after [`cancel`](Self::cancel), `Session` when NIXL
    /// refuses the transfer or the session ends; all of these stay. Or `DeadlineExceeded`: then the operation goes on, and
    /// can be waited for again, cancelled or dropped.
    pub fn wait_for_completion(&self, deadline: Instant) -> Completion<'_> {
        let ready = |state: &super::state::State| state.outcome();
        Completion::new(&self.shared.waiting, "the end of the transfer", ready, deadline)
    }

    /// Ends the operation for its holder, with the status `STOP`, at once. What is in flight goes on in the background (see
    /// the type), so bytes may still change at the target, and the peer may be told that all went well.
    ///
    /// # Errors
    /// `Ended` when it has ended before; its status stays.
    pub fn cancel(&self) -> Result<(), OperationError> {
        self.shared.waiting.change(|state| state.cancel())
    }

    /// The local descriptors in the order in which they were given, once the status is `DONE`.
    ///
    /// # Errors
    /// `NotComplete` with any other status.
    pub fn results(&self) -> Result<&[D], OperationError> {
        match self.status() {
            OperationStatus::Complete => Ok(&self.local),
            other => Err(OperationError::NotComplete(other)),
        }
    }

    /// Waits until NIXL is done with the memory, however the operation ended. With a peer that is stopped rather than dead
    /// that does not come, so take a deadline that you can afford to wait for.
    ///
    /// # Errors
    /// `DeadlineExceeded`; it can be waited for again. The operation's own failure, at once, when NIXL failed to post the
    /// transfer and has the memory for good (see the type).
    pub fn wait_for_release(&self, deadline: Instant) -> Completion<'_> {
        let ready = |state: &super::state::State| state.release_outcome();
        Completion::new(&self.shared.waiting, "the release of the memory", ready, deadline)
    }

    /// Gives the local descriptors back, in the order in which they were given.
    ///
    /// # Errors
    /// The operation itself, while NIXL may still use the memory: after a cancellation or a failure, see
    /// [`wait_for_release`](Self::wait_for_release).
    pub fn into_descriptors(mut self) -> Result<Vec<D>, Self> {
        if !self.shared.waiting.read(|state| state.is_released()) {
            return Err(self);
        }
        Ok(std::mem::take(&mut self.local))
    }
}

impl<D> Drop for ActiveOperation<D> {
    fn drop(&mut self) {
        // The session keeps its own hold on the memory until NIXL is done with it.
        let link = self.connector.link();
        match self.shared.waiting.change(|state| state.give_up()) {
            Some(opened) => link.close_opened(&opened),
            // It may be waiting for its peer, with others behind it.
            None => link.unwanted(),
        }
    }
}

impl<D> std::fmt::Debug for ActiveOperation<D> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = self.shared.waiting.read(|state| state.status());
        formatter
            .debug_struct("ActiveOperation")
            .field("peer", &self.shared.peer)
            .field("status", &status)
            .finish_non_exhaustive()
    }
}

impl<D: AsRef<Descriptor> + Unpin> sealed::Sealed for ActiveOperation<D> {
    type Memory = D;

    #[allow(private_interfaces)] // nobody outside can name the trait
    fn waiting(&self) -> &Waiting {
        &self.shared.waiting
    }

    /// A refusal of the session is the caller's at once; a failure after the transfer was posted is told by
    /// [`ActiveOperation::wait_for_completion`].
    fn started(self) -> Result<Self, Refused<D>> {
        let refused = self.shared.waiting.read(|state| {
            let failed = state.outcome().and_then(Result::err);
            failed.filter(|_| state.was_refused())
        });
        match refused {
            Some(error) => Err(self.refused(error)),
            None => Ok(self),
        }
    }

    fn refused(mut self, error: OperationError) -> Refused<D> {
        let released = self.shared.waiting.read(|state| state.is_released());
        let descriptors = if released { std::mem::take(&mut self.local) } else { Vec::new() };
        Refused { error, descriptors }
    }
}

impl Shared {
    fn opened(&self, result: Result<Opened, SessionError>, link: &Link) {
        let unwanted = self.waiting.change(|state| match result {
            Ok(opened) => state.open(opened, OperationStatus::InProgress),
            Err(error) => {
                state.refuse(error.into());
                None
            }
        });
        if let Some(opened) = unwanted {
            link.close_opened(&opened);
        }
    }
}

impl Endpoint for Shared {
    fn is_wanted(&self) -> bool {
        self.waiting.read(|state| !state.is_given_up() && !state.status().is_terminal())
    }

    fn is_over(&self) -> bool {
        self.waiting.read(|state| state.is_over())
    }

    fn notified(&self, _peer: &str, _message: &[u8]) -> Claim {
        Claim::Foreign
    }

    fn transferred(&self, _token: u64) {
        self.waiting.change(|state| state.complete());
    }

    fn refused(&self, _token: u64, reason: &str) {
        let error = SessionError::Nixl { call: "post the transfer", reason: reason.to_owned() };
        self.waiting.change(|state| state.refuse(error.into()));
    }

    fn failed(&self, _token: u64) {
        self.waiting.change(|state| state.release());
    }

    fn stuck(&self, _token: u64, reason: &str) {
        let error = SessionError::Nixl { call: "post the transfer", reason: reason.to_owned() };
        self.waiting.change(|state| state.keep(error.into()));
    }

    fn lost(&self, peer: &str, reason: &str) {
        if *self.peer == *peer {
            let error = OperationError::PeerLost { peer: peer.to_owned(), reason: reason.to_owned() };
            self.waiting.change(|state| state.fail(error));
        }
    }

    fn tick(&self, _now: Instant) {}

    fn closed(&self) {
        self.waiting.change(|state| state.fail(SessionError::Closed.into()));
    }
}
