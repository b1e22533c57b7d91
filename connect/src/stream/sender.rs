//! The sending end: gives out free slots, digests and posts them, frees them when the receiver returned them. Waits;
//! the bytes move on the session's thread.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::StreamError;
use super::message::Message;
use super::progress::Progress;
use super::ring::Ring;
use super::send_state::{Effect, SendState};
use super::slot_mut::SlotMut;
use super::target::Target;
use super::waiting::{AbortHandle, Faulty, Waiting};
use crate::device::Device;
use crate::memory::Slot;
use crate::metadata::{OperationKind, RdmaMetadata, SerializedDescriptor};
use crate::session::{Claim, Endpoint, EndpointId, Link, Local, RegionId, Session, Transfer};

/// The active end of a stream to one receiver. A session can have several.
#[derive(Debug)]
pub struct Sender {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) waiting: Arc<Waiting<SendState<Slot>>>,
    link: Link,
    region: RegionId,
    ring: Ring,
    target: OnceLock<Target>,
    endpoint: OnceLock<EndpointId>,
    progress: Arc<Progress>,
    #[cfg(feature = "fault-injection")]
    corruption: std::sync::Mutex<super::corruption::Corruption>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let peer = self.target.get().map(|target| &target.peer);
        formatter
            .debug_struct("Shared")
            .field("ring", &self.ring)
            .field("peer", &peer)
            .finish_non_exhaustive()
    }
}

impl Sender {
    /// Maps and registers a ring of `slots` slots of `chunk_size` bytes. Both must be those of the receiver.
    ///
    /// # Errors
    /// `Misuse` beyond the bounds of a ring, `Session` when memory or registration fails.
    pub fn open(session: &Session, slots: usize, chunk_size: usize) -> Result<Self, StreamError> {
        let ring = Ring::new(slots, chunk_size)?;
        let link = session.link().clone();
        let (region, slots) = ring.map(&link)?;
        let shared = Shared {
            waiting: Arc::new(Waiting::new(SendState::new(slots))),
            link,
            region,
            ring,
            target: OnceLock::new(),
            endpoint: OnceLock::new(),
            progress: Arc::default(),
            #[cfg(feature = "fault-injection")]
            corruption: std::sync::Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Checks what the receiver offers against this ring, and loads its agent. Nothing has moved when this fails.
    ///
    /// # Errors
    /// `Malformed` for another kind, count, size or device; `PeerLost` for an agent that was lost before.
    pub fn connect(&mut self, receiver: &RdmaMetadata) -> Result<(), StreamError> {
        if self.shared.target.get().is_some() {
            return Err(StreamError::Misuse("a sender is connected once"));
        }
        let target = Target::of(receiver, self.shared.ring)?;
        self.shared.link.load_peer(receiver.agent().clone())?;
        let _ = self.shared.target.set(target);
        match self.shared.link.open(self.shared.clone()) {
            Ok(endpoint) => {
                let _ = self.shared.endpoint.set(endpoint);
                Ok(())
            }
            Err(error) => {
                let error = StreamError::from(error);
                self.shared.waiting.fail(error.clone());
                Err(error)
            }
        }
    }

    /// A free slot to fill; waits for one until `deadline`.
    ///
    /// # Errors
    /// `DeadlineExceeded` when the receiver returned none in time; else the stream's failure.
    pub fn slot(&mut self, deadline: Instant) -> Result<SlotMut, StreamError> {
        self.require_connection()?;
        let slot = self.shared.waiting.wait(deadline, "a free slot", SendState::take_free)?;
        Ok(SlotMut::new(slot, Arc::clone(&self.shared)))
    }

    /// Announces the end and waits until the receiver has returned every slot and knows the end. After
    /// `DeadlineExceeded` it may be called again.
    pub fn finish(&mut self, deadline: Instant) -> Result<(), StreamError> {
        let target = self.require_connection()?;
        let count = self.shared.waiting.lock().announce_end();
        self.shared.link.notify(Arc::clone(&target.peer), Message::End { count }.encode(target.stream));
        let complete = |state: &mut SendState<Slot>| state.is_complete().then_some(());
        self.shared.waiting.wait(deadline, "the receiver's last answers", complete)?;
        self.shared.link.notify(Arc::clone(&target.peer), Message::Farewell { count }.encode(target.stream));
        Ok(())
    }

    /// Counters, readable while the stream runs.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.shared.progress)
    }

    /// A handle that ends the stream from another thread.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle::of(&self.shared.waiting)
    }

    /// For tests: damages the chunk with this number after its digest was made, the first `times` times it is written.
    #[cfg(feature = "fault-injection")]
    pub fn corrupt_chunk(&mut self, sequence: u64, times: u32) {
        self.shared
            .corruption
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .plan(sequence, times);
    }

    fn require_connection(&self) -> Result<&Target, StreamError> {
        self.shared.target.get().ok_or(StreamError::Misuse("the sender is not connected"))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.shared.waiting.fail(StreamError::Closed);
        if let Some(endpoint) = self.shared.endpoint.get() {
            self.shared.link.close(*endpoint);
        }
        // The session keeps the memory as long as NIXL may read it.
        self.shared.link.release(self.shared.region);
    }
}

impl Shared {
    /// Posts the chunk with this number from its slot, for the first time or again.
    pub(super) fn post(&self, state: &mut SendState<Slot>, sequence: u64) {
        let (Some(target), Some(endpoint), Some(chunk)) =
            (self.target.get(), self.endpoint.get(), state.outstanding(sequence))
        else {
            return;
        };
        #[cfg(feature = "fault-injection")]
        self.corruption
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .before_write(sequence, &mut chunk.slot);
        let Some(remote) = target.slots.get(chunk.index as usize) else { return };
        let message =
            Message::Chunk { sequence, slot: chunk.index, length: chunk.length, digest: chunk.digest };
        let range = |address: usize| SerializedDescriptor {
            device: Device::Cpu,
            ptr: address as u64,
            size: u64::from(chunk.length),
        };
        self.link.post(Transfer {
            endpoint: *endpoint,
            token: sequence,
            kind: OperationKind::Write,
            peer: Arc::clone(&target.peer),
            local: vec![Local { region: self.region, memory: range(chunk.slot.address()) }],
            remote: vec![range(*remote)],
            message: message.encode(target.stream),
            in_flight: Vec::new(),
        });
    }

    fn apply(&self, state: &mut SendState<Slot>, effect: Result<Effect, StreamError>) {
        match effect {
            Ok(Effect::Nothing) => {}
            Ok(Effect::Through { length }) => self.progress.chunk(length as usize),
            Ok(Effect::Resend { sequence }) => {
                self.progress.resend();
                self.post(state, sequence);
            }
            Err(error) => state.fail(error),
        }
    }
}

impl Endpoint for Shared {
    fn notified(&self, peer: &str, message: &[u8]) -> Claim {
        let Some(target) = self.target.get() else { return Claim::Foreign };
        let message = match Message::decode(message) {
            Some((stream, message)) if stream == target.stream && !message.is_senders() => message,
            _ => return Claim::Foreign,
        };
        if *peer != *target.peer {
            self.progress.refuse();
            return Claim::Taken;
        }
        let mut state = self.waiting.lock();
        let effect = match message {
            Message::Credit { sequence, slot } => state.credit(sequence, slot),
            Message::Reject { sequence, slot } => state.reject(sequence, slot),
            Message::Received { count } => state.end_known(count).map(|()| Effect::Nothing),
            // A sign of life; what only a sender says was sorted out above.
            Message::Alive { .. }
            | Message::Chunk { .. }
            | Message::End { .. }
            | Message::Farewell { .. } => Ok(Effect::Nothing),
        };
        self.apply(&mut state, effect);
        drop(state);
        self.waiting.wake();
        Claim::Taken
    }

    fn transferred(&self, token: u64) {
        let mut state = self.waiting.lock();
        let effect = state.written(token);
        self.apply(&mut state, Ok(effect));
        drop(state);
        if effect != Effect::Nothing {
            self.waiting.wake();
        }
    }

    fn refused(&self, token: u64, reason: &str) {
        self.waiting.fail(StreamError::Session(format!("chunk {token} could not be posted: {reason}")));
    }

    fn failed(&self, _token: u64) {}

    fn lost(&self, peer: &str, reason: &str) {
        if self.target.get().is_some_and(|target| *target.peer == *peer) {
            self.waiting.fail(StreamError::PeerLost { peer: peer.to_owned(), reason: reason.to_owned() });
        }
    }

    fn tick(&self, _now: Instant) {
        let Some(target) = self.target.get() else { return };
        let state = self.waiting.lock();
        if state.fault().is_none() && !state.is_complete() {
            self.link
                .notify(Arc::clone(&target.peer), Message::Alive { from_sender: true }.encode(target.stream));
        }
    }

    fn closed(&self) {
        self.waiting.fail(StreamError::Closed);
    }
}
