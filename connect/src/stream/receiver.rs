//! The receiving end: exposes a ring of slots, verifies chunks as they come and gives them out in order, straight from
//! the slots. Waits; the bytes move on the session's thread.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::StreamError;
use super::answers::AnswerSender;
use super::message::{Message, StreamId};
use super::progress::Progress;
use super::receive_state::{Arrival, Next, ReceiveState};
use super::ring;
use crate::device::Device;
use crate::digest::chunk_digest;
use crate::memory::{Ring, Slot};
use crate::metadata::{CheckedMetadata, OperationKind, RdmaMetadata, SerializedDescriptor};
use crate::session::{Claim, Endpoint, EndpointId, Link, RegionId, Session};
use crate::waiting::{AbortHandle, Faulty, Waiting};

/// The passive end of a stream from one sender.
///
/// Its memory stays mapped and registered until the session ends, also when the receiver is dropped: a sender that knows
/// the address can write there for as long as the process lives.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    endpoint: EndpointId,
    metadata: RdmaMetadata,
    ring: Ring,
}

/// What the receiver shares with the session's thread, its chunks and its answers.
pub(super) struct Shared {
    waiting: Arc<Waiting<ReceiveState<Slot>>>,
    link: Link,
    region: RegionId,
    stream: StreamId,
    progress: Arc<Progress>,
    /// Chunks are sent on, and may be kept for long: the sender is told when they are found whole.
    is_relayed: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("progress", &self.progress.snapshot()).finish_non_exhaustive()
    }
}

impl Receiver {
    /// Maps and registers a ring of `slots` slots of `chunk_size` bytes. `key` names the stream: 1 to 256 bytes, unique.
    /// Chunks that come before [`Receiver::connect`] are kept.
    ///
    /// # Errors
    /// `Misuse` beyond the bounds of a ring, `Session` when memory or registration fails, `Malformed` for a bad key.
    pub fn open(session: &Session, slots: usize, chunk_size: usize, key: &str) -> Result<Self, StreamError> {
        let link = session.link().clone();
        let (ring, region, slots) = ring::open(&link, slots, chunk_size)?;
        let descriptor = |slot: &Slot| SerializedDescriptor {
            device: Device::Cpu,
            ptr: slot.address() as u64,
            size: slot.len() as u64,
        };
        let descriptors = slots.iter().map(descriptor).collect();
        let metadata =
            RdmaMetadata::new(descriptors, link.agent_metadata()?, key.to_owned(), OperationKind::Write)?;
        let shared = Arc::new(Shared {
            waiting: Arc::new(Waiting::new(ReceiveState::new(slots, chunk_size))),
            link: link.clone(),
            region,
            stream: StreamId::of(key),
            progress: Arc::default(),
            is_relayed: AtomicBool::new(false),
        });
        let endpoint = link.open(shared.clone())?;
        Ok(Self { shared, endpoint, metadata, ring })
    }

    /// What the sender needs: one descriptor per slot, this agent's metadata as of now, the key, kind WRITE.
    pub fn rdma_metadata(&self) -> &RdmaMetadata {
        &self.metadata
    }

    /// Loads the sender's agent, so that slots can be returned to it. From now on only its notifications count.
    ///
    /// # Errors
    /// `PeerLost` for an agent that was lost before, `Misuse` for a second call.
    pub fn connect(&mut self, sender: CheckedMetadata) -> Result<(), StreamError> {
        if self.shared.waiting.lock().peer().is_some() {
            return Err(StreamError::Misuse("a receiver is connected once"));
        }
        let peer: Arc<str> = sender.agent().into();
        self.shared.link.load_peer(sender)?;
        let mut state = self.shared.waiting.lock();
        let (early, foreign) = state.connect(peer);
        (0..foreign).for_each(|_| self.shared.progress.refuse());
        early.into_iter().for_each(|message| self.shared.take(&mut state, message));
        drop(state);
        self.shared.waiting.wake();
        Ok(())
    }

    /// The next chunk in order, verified, or `None` after the last one; waits for it until `deadline`.
    ///
    /// # Errors
    /// `DeadlineExceeded` when nothing came in time (it may be called again); else the stream's failure.
    pub fn next(&mut self, deadline: Instant) -> Result<Option<Chunk>, StreamError> {
        loop {
            let (arrival, slot) =
                match self.shared.waiting.wait(deadline, "the next chunk", ReceiveState::next)? {
                    Next::End => return Ok(None),
                    Next::Chunk(arrival, slot) => (arrival, slot),
                };
            let length = arrival.length as usize;
            if slot.get(..length).is_some_and(|bytes| chunk_digest(bytes) == arrival.digest) {
                self.shared.waiting.lock().accept();
                self.shared.progress.chunk(length);
                let sequence = arrival.sequence;
                if self.shared.is_relayed.load(Ordering::Relaxed) {
                    let verified = Message::Verified { sequence, slot: arrival.slot };
                    self.shared.say(&self.shared.waiting.lock(), verified);
                }
                return Ok(Some(Chunk {
                    slot: Some(slot),
                    length,
                    sequence,
                    digest: arrival.digest,
                    shared: Arc::clone(&self.shared),
                }));
            }
            self.shared.reject(arrival, slot);
        }
    }

    /// After the end: waits until the sender has got every slot back, or is gone. A process that ends without this can
    /// take its last answers with it, and its sender then reports a lost peer. What was received is complete either way.
    ///
    /// # Errors
    /// `Misuse` before [`Receiver::next`] gave `None`, `DeadlineExceeded` when the sender says nothing.
    pub fn finish(&mut self, deadline: Instant) -> Result<(), StreamError> {
        if !self.shared.waiting.lock().is_complete() {
            return Err(StreamError::Misuse("a receiver finishes after the last chunk"));
        }
        let parted = |state: &mut ReceiveState<Slot>| state.has_parted().then_some(());
        self.shared.waiting.wait(deadline, "the sender's farewell", parted)
    }

    /// The way back to the sender, for any thread.
    pub fn answers(&self) -> AnswerSender {
        AnswerSender(Arc::clone(&self.shared))
    }

    /// Counters, readable while the stream runs.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.shared.progress)
    }

    /// From now on a relay may keep its chunks.
    pub(super) fn relayed(&self) {
        self.shared.is_relayed.store(true, Ordering::Relaxed);
    }

    pub(super) fn ring(&self) -> Ring {
        self.ring
    }

    pub(super) fn link(&self) -> &Link {
        &self.shared.link
    }

    pub(super) fn region(&self) -> RegionId {
        self.shared.region
    }

    /// A handle that ends the stream from another thread.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle::of(&self.shared.waiting)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.waiting.fail(StreamError::Closed);
        // After `next` gave the end a chunk may still be held; its credit is sent whether or not the endpoint is open.
        self.shared.link.close(self.endpoint);
    }
}

impl Shared {
    fn say(&self, state: &ReceiveState<Slot>, message: Message) {
        if let Some(peer) = state.peer() {
            self.link.notify(Arc::clone(peer), message.encode(self.stream));
        }
    }

    pub(super) fn answer(&self, text: &[u8]) -> Result<(), StreamError> {
        let mut state = self.waiting.lock();
        if let Some(fault) = state.fault() {
            return Err(fault.clone());
        }
        if state.peer().is_none() {
            return Err(StreamError::Misuse("an answer before the receiver is connected"));
        }
        // Numbered and handed over under the lock, so that the numbers leave in their order.
        let sequence = state.number_answer();
        self.say(&state, Message::Answer { sequence, text: text.to_vec() });
        Ok(())
    }

    /// A message of the peer.
    fn take(&self, state: &mut ReceiveState<Slot>, message: Message) {
        let result = match message {
            Message::Chunk { sequence, slot, length, digest } => {
                state.chunk(Arrival { sequence, slot, length, digest })
            }
            Message::End { count } => state.end(count).map(|()| self.say(state, Message::Received { count })),
            Message::Farewell { count } => state.farewell(count),
            // A sign of life; what only a receiver says was sorted out before.
            Message::Alive { .. }
            | Message::Credit { .. }
            | Message::Verified { .. }
            | Message::Reject { .. }
            | Message::Received { .. }
            | Message::Answer { .. } => Ok(()),
        };
        if let Err(error) = result {
            state.fail(error);
        }
    }

    fn reject(&self, arrival: Arrival, slot: Slot) {
        let mut state = self.waiting.lock();
        // Said before the slot's last attempt is judged, so that the sender learns of the end too.
        self.say(&state, Message::Reject { sequence: arrival.sequence, slot: arrival.slot });
        match state.reject(arrival, slot) {
            Ok(()) => self.progress.resend(),
            Err(error) => state.fail(error),
        }
    }
}

impl Endpoint for Shared {
    fn notified(&self, peer: &str, message: &[u8]) -> Claim {
        let message = match Message::decode(message) {
            Some((stream, message)) if stream == self.stream && message.is_senders() => message,
            _ => return Claim::Foreign,
        };
        let mut state = self.waiting.lock();
        match state.peer() {
            None => {
                if !state.keep_early(peer, message) {
                    self.progress.refuse();
                }
            }
            Some(known) if **known == *peer => self.take(&mut state, message),
            Some(_) => self.progress.refuse(),
        }
        drop(state);
        self.waiting.wake();
        Claim::Taken
    }

    fn transferred(&self, _token: u64) {}

    fn refused(&self, _token: u64, _reason: &str) {}

    fn failed(&self, _token: u64) {}

    fn stuck(&self, _token: u64, _reason: &str) {}

    fn lost(&self, peer: &str, reason: &str) {
        let mut state = self.waiting.lock();
        if state.peer().is_some_and(|known| **known == *peer) {
            state.fail(StreamError::PeerLost { peer: peer.to_owned(), reason: reason.to_owned() });
        }
        drop(state);
        self.waiting.wake();
    }

    fn tick(&self, _now: Instant) {
        let state = self.waiting.lock();
        if state.fault().is_none() && !state.has_parted() {
            self.say(&state, Message::Alive { from_sender: false });
        }
    }

    fn closed(&self) {
        self.waiting.fail(StreamError::Closed);
    }
}

/// A verified chunk; derefs to its bytes, which lie in the slot they arrived in. Dropping it returns the slot to the
/// sender.
#[derive(Debug)]
pub struct Chunk {
    /// `None` only while it is dropped.
    slot: Option<Slot>,
    length: usize,
    sequence: u64,
    digest: u64,
    shared: Arc<Shared>,
}

impl Chunk {
    /// The chunk's number, from 0.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    pub(super) fn region(&self) -> RegionId {
        self.shared.region
    }

    /// Where the bytes lie.
    pub(super) fn address(&self) -> Option<usize> {
        self.slot.as_ref().map(Slot::address)
    }

    /// Returns the slot to the sender; the same as dropping the chunk.
    pub fn release(self) {}
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.slot.as_ref().and_then(|slot| slot.get(..self.length)).unwrap_or_default()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        let index = slot.index() as u32;
        let mut state = self.shared.waiting.lock();
        state.give_back(index, slot);
        self.shared.say(&state, Message::Credit { sequence: self.sequence, slot: index });
    }
}
