//! The passive side of a pair: offers memory, and is told when the other side is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::completion::Completion;
use super::error::{OperationError, Refused};
use super::plan::check_local;
use super::starting::{Starting, sealed};
use super::waiting::Waiting;
use crate::connector::Connector;
use crate::descriptor::{Descriptor, Locals};
use crate::metadata::{
    AgentMetadata, CheckedMetadata, Encoding, OperationKind, RdmaMetadata, encode_agent_metadata,
};
use crate::session::{Answer, Claim, Endpoint, Link, Offer, Opened, SessionError};
use crate::status::OperationStatus;

/// Memory that a peer may read once. Others may read it meanwhile, also through further operations. Made by
/// [`Connector::create_readable`]; the methods are those of [`PassiveOperation`].
///
/// # Example
/// One region for several receivers: an operation for each, over the same memory.
/// ```no_run
/// use std::sync::Arc;
/// use std::time::{Duration, Instant};
///
/// use nixl_connect::{Connector, Descriptor, OperationError};
///
/// fn offer(
///     connector: &Connector,
///     memory: &Arc<Descriptor>,
///     receivers: &[impl Fn(String)],
/// ) -> Result<(), OperationError> {
///     let mut operations = Vec::new();
///     for send in receivers {
///         let operation = connector.create_readable(Arc::clone(memory)).blocking()?;
///         send(operation.metadata().to_json());
///         operations.push(operation);
///     }
///     let deadline = Instant::now() + Duration::from_secs(60);
///     operations.iter().try_for_each(|operation| operation.wait_for_completion(deadline).blocking())
/// }
/// ```
pub type ReadableOperation = PassiveOperation<Arc<Descriptor>>;
/// Memory that a peer may write once; nobody else has access to it until the operation is over. Made by
/// [`Connector::create_writable`]; the methods are those of [`PassiveOperation`].
///
/// # Example
/// ```no_run
/// use std::time::{Duration, Instant};
///
/// use nixl_connect::{Connector, Descriptor};
///
/// fn receive(connector: &Connector, send: impl Fn(String)) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
///     let operation = connector.create_writable(Descriptor::zeroed(4096)?).blocking()?;
///     send(operation.metadata().to_json());
///     operation.wait_for_completion(Instant::now() + Duration::from_secs(60)).blocking()?;
///     Ok(operation.results()?[0].bytes().unwrap_or_default().to_vec())
/// }
/// ```
pub type WritableOperation = PassiveOperation<Descriptor>;

/// A [`ReadableOperation`] or a [`WritableOperation`]: a peer can reach its memory from its creation on.
///
/// One [`RdmaMetadata`] is for one peer and one use. From the first call of [`PassiveOperation::metadata`] on, a peer may
/// know the address, and nothing but the end of this process takes that back (over TCP NIXL checks nothing at the memory's
/// owner). So the memory is given back only when the peer has said that it is done; the memory of an operation that is
/// cancelled, failed or dropped before stays mapped until the process ends, and is counted in
/// [`SessionStatistics::abandoned_bytes`](crate::SessionStatistics::abandoned_bytes).
pub struct PassiveOperation<D: AsRef<Descriptor>> {
    shared: Arc<Shared>,
    local: Vec<D>,
    /// There once the session has answered.
    metadata: Option<Box<RdmaMetadata>>,
    exposed: AtomicBool,
    kind: OperationKind,
    /// Keeps the session for as long as the operation lives.
    connector: Connector,
}

struct Shared {
    waiting: Waiting,
    key: String,
    link: Link,
    agent: std::sync::OnceLock<AgentMetadata>,
}

impl<D: AsRef<Descriptor> + Unpin> PassiveOperation<D> {
    pub(crate) fn create(connector: &Connector, kind: OperationKind, local: Locals<D>) -> Starting<Self> {
        let Locals(local) = local;
        let ranges: Vec<_> = local.iter().map(|local| local.as_ref().serialized()).collect();
        let link = connector.link();
        let possible = check_local(&ranges).and_then(|()| {
            let elsewhere = local.iter().position(|local| local.as_ref().is_registered_elsewhere(link));
            elsewhere.map_or(Ok(()), |index| Err(OperationError::OtherConnector(index)))
        });
        if let Err(error) = possible {
            return Starting::new(Err(Refused { error, descriptors: local }));
        }
        let shared = Arc::new(Shared {
            waiting: Waiting::new(),
            key: uuid::Uuid::new_v4().to_string(),
            link: link.clone(),
            agent: std::sync::OnceLock::new(),
        });
        let answer = {
            let shared = Arc::clone(&shared);
            Answer::new(move |result| shared.opened(result))
        };
        link.offer(Offer {
            endpoint: Arc::clone(&shared) as Arc<dyn Endpoint>,
            key: shared.key.as_bytes().to_vec(),
            local: local.iter().map(|local| local.as_ref().backing()).collect(),
            answer,
        });
        Starting::new(Ok(Self {
            shared,
            local,
            metadata: None,
            exposed: AtomicBool::new(false),
            kind,
            connector: connector.clone(),
        }))
    }

    /// What the peer needs; it lists the memory of this operation and no other. Give it to one peer, once.
    /// [`RdmaMetadata::to_json`] is its wire form, and [`RdmaMetadata::with_encoding`] makes the hexadecimal one.
    pub fn metadata(&self) -> &RdmaMetadata {
        self.exposed.store(true, Ordering::Relaxed);
        match &self.metadata {
            Some(metadata) => metadata,
            None => unreachable!("an operation is given out with its metadata only"),
        }
    }

    /// The operation's state at this moment: `INIT` until the peer is done. It never waits.
    pub fn status(&self) -> OperationStatus {
        self.shared.waiting.read(|state| state.status())
    }

    /// Names the one agent that may complete the operation, by the metadata that it published. A completion by another
    /// agent is then an error, and so is the death of this one: it is asked for a sign of life once a second (with the
    /// notification key as the message, which a Python peer overlooks). Without this call any holder of the metadata may
    /// complete the operation, and a peer that dies is noticed by the deadline of the wait only.
    ///
    /// This guards against mix-ups, not against malice: the sender's name is what the sender says in its notification, and
    /// NIXL does not prove it.
    ///
    /// # Errors
    /// `Sender` when another agent has completed it already.
    pub fn expect_sender(&self, sender: CheckedMetadata) -> Result<(), OperationError> {
        let name: Arc<str> = sender.agent().into();
        self.shared.waiting.change(|state| state.expect(name))?;
        let shared = Arc::clone(&self.shared);
        let met = Answer::new(move |result: Result<(), SessionError>| {
            if let Err(error) = result {
                shared.waiting.change(|state| state.fail(error.into()));
            }
        });
        self.shared.link.meet_peer(sender, met);
        Ok(())
    }

    /// The agent whose notification completed the operation, or would have but for
    /// [`expect_sender`](Self::expect_sender), by the name that it says it has; `None` before.
    pub fn sender(&self) -> Option<Arc<str>> {
        self.shared.waiting.read(|state| state.sender().cloned())
    }

    /// Waits until the peer has read or written everything and said so.
    ///
    /// # Errors
    /// After [`expect_sender`](Self::expect_sender) `PeerLost` when that peer died, `StalePeer` when it was lost before, and
    /// `Sender` when another one came; `Cancelled` after [`cancel`](Self::cancel); `Session` when the session ends; all of
    /// these stay. Or `DeadlineExceeded`: then the operation goes on, and can be waited for again, cancelled or dropped.
    pub fn wait_for_completion(&self, deadline: Instant) -> Completion<'_> {
        let ready = |state: &super::state::State| state.outcome();
        Completion::new(&self.shared.waiting, "the peer's notification", ready, deadline)
    }

    /// Ends the operation for its holder, with the status `STOP`. The peer is not told and may still come (see the type).
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

    /// Gives the local descriptors back, in the order in which they were given.
    ///
    /// # Errors
    /// The operation itself, when a peer may still reach the memory: any status but `DONE`, once the metadata was given
    /// out.
    pub fn into_descriptors(mut self) -> Result<Vec<D>, Self> {
        if self.is_reachable() {
            return Err(self);
        }
        Ok(std::mem::take(&mut self.local))
    }
}

impl<D: AsRef<Descriptor>> PassiveOperation<D> {
    fn is_reachable(&self) -> bool {
        self.exposed.load(Ordering::Relaxed) && !self.shared.waiting.read(|state| state.is_released())
    }
}

impl<D: AsRef<Descriptor>> Drop for PassiveOperation<D> {
    fn drop(&mut self) {
        if self.is_reachable() {
            for local in std::mem::take(&mut self.local) {
                self.shared.link.abandon(&*local.as_ref().backing());
                // With it the memory stays mapped, and a shared descriptor stays shared: nobody can write what a peer reads.
                std::mem::forget(local);
            }
        }
        if let Some(opened) = self.shared.waiting.change(|state| state.give_up()) {
            self.connector.link().close_opened(&opened);
        }
    }
}

/// The metadata is a capability and is not shown.
impl<D: AsRef<Descriptor>> std::fmt::Debug for PassiveOperation<D> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = self.shared.waiting.read(|state| state.status());
        formatter
            .debug_struct("PassiveOperation")
            .field("kind", &self.kind)
            .field("status", &status)
            .finish_non_exhaustive()
    }
}

impl<D: AsRef<Descriptor> + Unpin> sealed::Sealed for PassiveOperation<D> {
    type Memory = D;

    #[allow(private_interfaces)] // nobody outside can name the trait
    fn waiting(&self) -> &Waiting {
        &self.shared.waiting
    }

    fn started(mut self) -> Result<Self, Refused<D>> {
        let Some(agent) = self.shared.agent.get() else {
            let failure = self.shared.waiting.read(|state| state.outcome().and_then(Result::err));
            return Err(self.refused(failure.unwrap_or(SessionError::Closed.into())));
        };
        let descriptors = self.local.iter().map(|local| local.as_ref().serialized()).collect();
        let metadata = encode_agent_metadata(&agent.to_bytes(), Encoding::Base64)
            .and_then(|encoded| RdmaMetadata::new(descriptors, encoded, self.shared.key.clone(), self.kind));
        match metadata {
            Ok(metadata) => {
                self.metadata = Some(Box::new(metadata));
                Ok(self)
            }
            Err(error) => Err(self.refused(OperationError::Metadata(error))),
        }
    }

    /// Nobody knows the memory's address yet, so it can always be given back.
    fn refused(mut self, error: OperationError) -> Refused<D> {
        Refused { error, descriptors: std::mem::take(&mut self.local) }
    }
}

impl Shared {
    fn opened(&self, result: Result<(Opened, AgentMetadata), SessionError>) {
        let unwanted = match result {
            Ok((opened, agent)) => {
                // Set once: the session answers once.
                let _ = self.agent.set(agent);
                self.waiting.change(|state| state.open(opened, OperationStatus::Initialized))
            }
            Err(error) => {
                self.waiting.change(|state| state.refuse(error.into()));
                None
            }
        };
        if let Some(opened) = unwanted {
            self.link.close_opened(&opened);
        }
    }
}

impl Endpoint for Shared {
    fn is_over(&self) -> bool {
        self.waiting.read(|state| state.is_over())
    }

    fn notified(&self, peer: &str, _message: &[u8]) -> Claim {
        self.waiting.change(|state| state.notified(peer));
        Claim::Taken
    }

    fn transferred(&self, _token: u64) {}

    fn refused(&self, _token: u64, _reason: &str) {}

    fn failed(&self, _token: u64) {}

    fn stuck(&self, _token: u64, _reason: &str) {}

    fn lost(&self, peer: &str, reason: &str) {
        let is_expected = |expected: &Arc<str>| **expected == *peer;
        if self.waiting.read(|state| state.expected().is_some_and(is_expected)) {
            let error = OperationError::PeerLost { peer: peer.to_owned(), reason: reason.to_owned() };
            self.waiting.change(|state| state.fail(error));
        }
    }

    fn tick(&self, _now: Instant) {
        let expected = self
            .waiting
            .read(|state| state.expected().filter(|_| !state.status().is_terminal()).map(Arc::clone));
        if let Some(peer) = expected {
            self.link.notify(peer, self.key.as_bytes().to_vec());
        }
    }

    fn closed(&self) {
        self.waiting.change(|state| state.fail(SessionError::Closed.into()));
    }
}
