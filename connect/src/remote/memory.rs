//! The memory of a peer in the hands of the caller. Waits; the bytes move on the session's thread.

use std::sync::Arc;
use std::time::Instant;

use super::RemoteError;
use super::layout::Layout;
use super::reading::Window;
use super::shared::Shared;
use super::staging::Staging;
use super::state::State;
use super::writing::Gathering;
use crate::device::Device;
use crate::metadata::{MemoryKind, OperationKind, RdmaMetadata};
use crate::session::{Answer, Attach, Endpoint, Session};
use crate::waiting::{AbortHandle, Waiting};

/// The memory that a peer offers by a [`ReadableOperation`](crate::ReadableOperation) or a
/// [`WritableOperation`](crate::WritableOperation), of this crate or of `dynamo.nixl_connect`, used in pieces like a file.
///
/// Its bytes pass through a few slots of memory of its own, so a region may be larger than what this process has. All
/// descriptors of the metadata, in their order, are one sequence of bytes, from offset 0 on; a piece may cross from one into
/// the next. They may lie on devices: only the peer's side is there, this one is host memory.
///
/// What a Readable offers is [read](Self::read), several pieces ahead as long as each call goes on where the last one ended.
/// What a Writable offers is [written](Self::write) behind the caller, [flushed](Self::flush), and can be
/// [read back](Self::read_back). The peer learns of none of this until [`complete`](Self::complete) tells it that all is well;
/// without that it goes on waiting.
///
/// Every wait has a deadline. After `DeadlineExceeded` the same call may be made again; any other failure while bytes move
/// stays. NIXL cannot take a transfer back: what is on its way when this is dropped, or after an error, may still land in the
/// peer's memory, and the slot that it comes from or goes to stays registered and mapped until NIXL is done with it. Only the
/// end of this process is sure to end it.
///
/// While it is open the peer must not offer memory that lies across this one to the same session by another operation.
///
/// # Example
/// ```no_run
/// use std::time::{Duration, Instant};
///
/// use nixl_connect::{RdmaMetadata, RemoteError, RemoteMemory, Session, Staging};
///
/// fn store(session: &Session, offer: RdmaMetadata, mut source: impl std::io::Read) -> Result<(), Box<dyn std::error::Error>> {
///     let soon = || Instant::now() + Duration::from_secs(30);
///     let mut memory = RemoteMemory::open(session, offer, Staging::default(), soon())?;
///     let mut piece = vec![0; 1 << 20];
///     let mut at = 0;
///     while at < memory.len() {
///         let length = source.read(&mut piece)?;
///         if length == 0 {
///             // Dropped like this the peer is told nothing.
///             return Err("the source is too short".into());
///         }
///         memory.write(at, &piece[..length], soon())?;
///         at += length as u64;
///     }
///     memory.flush(soon())?;
///     Ok(memory.complete(soon())?)
/// }
/// ```
pub struct RemoteMemory {
    pub(super) shared: Arc<Shared>,
    /// What tells the peer that it is complete.
    pub(super) key: Vec<u8>,
    pub(super) window: Window,
    pub(super) gathering: Gathering,
    /// The first error of any call.
    pub(super) failure: Option<RemoteError>,
}

impl RemoteMemory {
    /// Registers staging memory and makes the peer's memory known to NIXL; nothing is read or written yet. The staging
    /// memory is no larger than the peer's.
    ///
    /// # Errors
    /// `Misuse` for staging beyond the bounds of a ring; `Malformed` for descriptors of different kinds of memory, or one over
    /// the other; `Staging` and `Session` when something on this side fails, among it `PeerBusy` while other memory of the
    /// peer that lies across this is in use; `PeerLost` for a peer that was lost before; `DeadlineExceeded`.
    pub fn open(
        session: &Session,
        remote: RdmaMetadata,
        staging: Staging,
        deadline: Instant,
    ) -> Result<Self, RemoteError> {
        let layout = Layout::of(remote.descriptors())?;
        let ring = staging.ring_for(layout.length())?;
        let (arena, slots) = ring.map().map_err(|error| RemoteError::Staging(error.to_string()))?;
        let key = remote.notification_key().as_bytes().to_vec();
        let shared = Arc::new(Shared {
            waiting: Arc::new(Waiting::new(State::new(slots))),
            link: session.link().clone(),
            peer: remote.agent().agent().into(),
            kind: remote.operation_kind(),
            layout,
        });
        let answer = Answer::new({
            let shared = Arc::clone(&shared);
            move |result| shared.opened(result)
        });
        session.link().attach(Attach {
            endpoint: Arc::clone(&shared) as Arc<dyn Endpoint>,
            local: arena,
            remote: remote.descriptors().to_vec(),
            peer: remote.into_agent(),
            answer,
        });
        // Dropped at an error, it takes back what the session may still open.
        let memory =
            Self { shared, key, window: Window::default(), gathering: Gathering::default(), failure: None };
        let opened = |state: &mut State<_>| state.opened().map(drop);
        memory.shared.waiting.wait(deadline, "the session to make the peer's memory known", opened)?;
        Ok(memory)
    }

    /// The bytes of all descriptors.
    pub fn len(&self) -> u64 {
        self.shared.layout.length()
    }

    /// Never true: a descriptor has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it is offered for: to be read or to be written.
    pub fn kind(&self) -> OperationKind {
        self.shared.kind
    }

    /// The kind of memory that all descriptors lie in.
    pub fn memory_kind(&self) -> MemoryKind {
        self.devices().first().map_or(MemoryKind::Dram, |device| device.memory_kind())
    }

    /// Where the descriptors lie, each device once, in the order in which they come.
    pub fn devices(&self) -> Vec<Device> {
        let mut devices = Vec::new();
        for descriptor in self.shared.layout.descriptors() {
            if !devices.contains(&descriptor.device) {
                devices.push(descriptor.device);
            }
        }
        devices
    }

    /// The peer's agent name.
    pub fn peer(&self) -> &str {
        &self.shared.peer
    }

    /// A handle that ends every wait from another thread, at once and for good.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle::of(&self.shared.waiting)
    }

    /// Fills `buffer` with the peer's bytes from `offset` on.
    ///
    /// # Errors
    /// `Kind` for what a Writable offers, and `OutOfRange`, before anything moves; `DeadlineExceeded` when the peer's bytes did
    /// not come in time; `PeerLost`, `Transfer` or `Closed`, which stay. What is in the buffer then means nothing.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8], deadline: Instant) -> Result<(), RemoteError> {
        let result = self
            .shared
            .allow(OperationKind::Read, OperationKind::Read, offset, buffer.len())
            .and_then(|()| self.window.read(&self.shared, offset, buffer, deadline));
        self.keep(result)
    }

    /// Writes the bytes into the peer's memory from `offset` on, sooner or later: when this returns they are on their way, or
    /// wait in a slot that is not full, and never leave it if this is dropped. Of two calls for one place the later one counts.
    ///
    /// # Errors
    /// `Kind` for what a Readable offers, and `OutOfRange`, before anything moves; `DeadlineExceeded` when no slot became free
    /// in time; `PeerLost`, `Transfer` or `Closed`, which stay. Some of the bytes may land all the same.
    pub fn write(&mut self, offset: u64, bytes: &[u8], deadline: Instant) -> Result<(), RemoteError> {
        let result = self
            .shared
            .allow(OperationKind::Write, OperationKind::Write, offset, bytes.len())
            .and_then(|()| {
                // What was read back may be another after this.
                self.window.discard(&self.shared);
                self.gathering.write(&self.shared, offset, bytes, deadline)
            });
        self.keep(result)
    }

    /// Waits until all that was written is in the peer's memory. For what a Readable offers there is nothing to wait for.
    ///
    /// # Errors
    /// `DeadlineExceeded`; `PeerLost`, `Transfer` or `Closed`, which stay.
    pub fn flush(&mut self, deadline: Instant) -> Result<(), RemoteError> {
        let result = self.shared.check().and_then(|()| self.land(deadline));
        self.keep(result)
    }

    /// Reads from memory that is offered to be written: what was written is flushed first, so these are the bytes that the
    /// peer has. UCX allows it over every transport on which it was tried: tcp and shared memory.
    ///
    /// # Errors
    /// As [`read`](Self::read), with `Kind` for what a Readable offers.
    pub fn read_back(
        &mut self,
        offset: u64,
        buffer: &mut [u8],
        deadline: Instant,
    ) -> Result<(), RemoteError> {
        let result = self
            .shared
            .allow(OperationKind::Write, OperationKind::Read, offset, buffer.len())
            .and_then(|()| self.land(deadline))
            .and_then(|()| self.window.read(&self.shared, offset, buffer, deadline));
        self.keep(result)
    }

    /// The first error of a call is what [`complete`](Self::complete) will give.
    fn keep(&mut self, result: Result<(), RemoteError>) -> Result<(), RemoteError> {
        if let Err(error) = &result {
            self.failure.get_or_insert_with(|| error.clone());
        }
        result
    }
}

/// A capability of another process: shown without addresses and key.
impl std::fmt::Debug for RemoteMemory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("RemoteMemory")
            .field("peer", &self.shared.peer)
            .field("kind", &self.shared.kind)
            .field("length", &self.len())
            .finish_non_exhaustive()
    }
}
