//! The sending end: gives out free slots, digests and posts them, frees them when the receiver returned them. Waits;
//! the bytes move on the session's thread.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::StreamError;
use super::message::{Message, StreamId};
use super::progress::Progress;
use super::ring::Ring;
use super::send_state::{Effect, SendState};
use super::waiting::{AbortHandle, Faulty, Waiting};
use crate::device::Device;
use crate::digest::chunk_digest;
use crate::memory::Slot;
use crate::metadata::{OperationKind, RdmaMetadata};
use crate::session::{Claim, Endpoint, EndpointId, Link, RegionId, Session, Write};

/// The active end of a stream to one receiver. A session can have several.
#[derive(Debug)]
pub struct Sender {
    shared: Arc<Shared>,
}

/// Where the chunks go; known from `connect` on.
#[derive(Debug)]
struct Target {
    peer: Arc<str>,
    stream: StreamId,
    /// The address of each of the receiver's slots.
    slots: Vec<usize>,
}

struct Shared {
    waiting: Arc<Waiting<SendState<Slot>>>,
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
        let target = Target {
            peer: receiver.agent().agent().into(),
            stream: StreamId::of(receiver.notification_key()),
            slots: fitting_slots(receiver, self.shared.ring)?,
        };
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
        Ok(SlotMut { slot: Some(slot), shared: Arc::clone(&self.shared) })
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

/// The addresses of the receiver's slots, when they are exactly as many and as large as ours.
fn fitting_slots(receiver: &RdmaMetadata, ring: Ring) -> Result<Vec<usize>, StreamError> {
    let malformed = |what: String| Err(StreamError::Malformed(what));
    if receiver.operation_kind() != OperationKind::Write {
        return malformed("the receiver offers memory to read, not to write".to_owned());
    }
    let descriptors = receiver.descriptors();
    if descriptors.len() != ring.slots {
        return malformed(format!(
            "the receiver has {} slots, this sender {}",
            descriptors.len(),
            ring.slots
        ));
    }
    let mut slots = Vec::with_capacity(descriptors.len());
    for (index, descriptor) in descriptors.iter().enumerate() {
        if descriptor.device != Device::Cpu {
            return malformed(format!(
                "slot {index} is on {}, a stream has slots in host memory",
                descriptor.device
            ));
        }
        if descriptor.size != ring.chunk_size as u64 {
            return malformed(format!("slot {index} has {} bytes, not {}", descriptor.size, ring.chunk_size));
        }
        match usize::try_from(descriptor.ptr) {
            Ok(address) => slots.push(address),
            Err(_) => return malformed(format!("slot {index} has an address beyond this machine's")),
        }
    }
    Ok(slots)
}

impl Shared {
    /// Posts the chunk with this number from its slot, for the first time or again.
    fn post(&self, state: &mut SendState<Slot>, sequence: u64) {
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
        self.link.write(Write {
            endpoint: *endpoint,
            token: sequence,
            peer: Arc::clone(&target.peer),
            region: self.region,
            local: chunk.slot.address(),
            remote: *remote,
            length: chunk.length as usize,
            message: message.encode(target.stream),
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

    fn written(&self, token: u64) {
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

/// A free slot, derefs to its bytes. Dropped without [`SlotMut::send`] it is free again.
#[derive(Debug)]
pub struct SlotMut {
    /// `None` only after `send` took it.
    slot: Option<Slot>,
    shared: Arc<Shared>,
}

impl SlotMut {
    /// Sends the first `length` bytes as the next chunk; gives its number. Returns before they have moved.
    ///
    /// # Errors
    /// `Misuse` for a length of 0 or beyond the slot; else the stream's failure.
    pub fn send(mut self, length: usize) -> Result<u64, StreamError> {
        let Some(slot) = self.slot.take() else { return Err(StreamError::Closed) };
        let (Some(bytes), Ok(wire_length)) =
            (slot.get(..length).filter(|bytes| !bytes.is_empty()), u32::try_from(length))
        else {
            self.slot = Some(slot);
            return Err(StreamError::Misuse("a chunk has at least one byte and fits its slot"));
        };
        let digest = chunk_digest(bytes);
        let index = slot.index() as u32;
        let mut state = self.shared.waiting.lock();
        match state.begin(slot, index, wire_length, digest) {
            Ok(sequence) => {
                self.shared.post(&mut state, sequence);
                Ok(sequence)
            }
            Err((slot, error)) => {
                state.give_back(slot);
                Err(error)
            }
        }
    }
}

impl Deref for SlotMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.slot.as_deref().unwrap_or_default()
    }
}

impl DerefMut for SlotMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.slot.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for SlotMut {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.shared.waiting.lock().give_back(slot);
            self.shared.waiting.wake();
        }
    }
}
