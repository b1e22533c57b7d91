//! The sending end: gives out free slots, digests and posts them, frees them when the receiver returned them. Waits;
//! the bytes move on the session's thread.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::StreamError;
use super::answers::AnswerReceiver;
use super::message::Message;
use super::progress::Progress;
use super::receiver::{Chunk, Receiver};
use super::ring;
use super::send_slot::SendSlot;
use super::send_state::SendState;
use super::sending::Sending;
use super::slot_mut::SlotMut;
use super::target::Target;
use crate::memory::Ring;
use crate::metadata::RdmaMetadata;
use crate::session::{Link, RegionId, Session};
use crate::waiting::{AbortHandle, Waiting};

/// The active end of a stream to one receiver. A session can have several.
#[derive(Debug)]
pub struct Sender {
    shared: Arc<Sending>,
}

impl Sender {
    /// Maps and registers a ring of `slots` slots of `chunk_size` bytes. Both must be those of the receiver.
    ///
    /// # Errors
    /// `Misuse` beyond the bounds of a ring, `Session` when memory or registration fails.
    pub fn open(session: &Session, slots: usize, chunk_size: usize) -> Result<Self, StreamError> {
        let link = session.link().clone();
        let (ring, region, slots) = ring::open(&link, slots, chunk_size)?;
        let slots = slots.into_iter().map(SendSlot::Own).collect();
        Ok(Self::over(slots, link, region, false, ring))
    }

    /// A sender without memory of its own, for the chunks of a receiver of the same session: [`Sender::forward`] sends
    /// them on from the slots in which they came. Its ring has the measures of that receiver's.
    pub fn open_relay(receiver: &Receiver) -> Self {
        receiver.relayed();
        let ring = receiver.ring();
        // Bounded by `MAX_SLOTS`.
        let slots = (0..ring.slots as u32).map(|index| SendSlot::Relay { index, chunk: None }).collect();
        Self::over(slots, receiver.link().clone(), receiver.region(), true, ring)
    }

    fn over(slots: Vec<SendSlot>, link: Link, region: RegionId, is_relay: bool, ring: Ring) -> Self {
        let shared = Sending {
            waiting: Arc::new(Waiting::new(SendState::new(slots))),
            link,
            region,
            is_relay,
            ring,
            target: OnceLock::new(),
            endpoint: OnceLock::new(),
            progress: Arc::default(),
            #[cfg(feature = "fault-injection")]
            corruption: std::sync::Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
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
                self.shared.fail(error.clone());
                Err(error)
            }
        }
    }

    /// A free slot to fill; waits for one until `deadline`.
    ///
    /// # Errors
    /// `DeadlineExceeded` when the receiver returned none in time; `Misuse` for a relay; else the stream's failure.
    pub fn slot(&mut self, deadline: Instant) -> Result<SlotMut, StreamError> {
        match self.free_slot(deadline)? {
            SendSlot::Own(slot) => Ok(SlotMut::new(slot, Arc::clone(&self.shared))),
            relay @ SendSlot::Relay { .. } => {
                self.shared.waiting.lock().give_back(relay);
                Err(StreamError::Misuse("a relay has no slots to fill"))
            }
        }
    }

    /// Sends a chunk on from the slot in which it came, as the next chunk; gives its number. The chunk is kept until it is
    /// through, so its own sender gets the slot back when both this stream and the holders of the chunk are done with it.
    /// Waits for a free slot at the receiver until `deadline`.
    ///
    /// # Errors
    /// `DeadlineExceeded` when the receiver returned none in time; `Misuse` for a sender that is no relay, and for a chunk
    /// of another receiver; else the stream's failure.
    pub fn forward(&mut self, chunk: &Arc<Chunk>, deadline: Instant) -> Result<u64, StreamError> {
        if !self.shared.is_relay || chunk.region() != self.shared.region {
            return Err(StreamError::Misuse("a relay forwards the chunks of its own receiver"));
        }
        let Ok(length) = u32::try_from(chunk.len()) else {
            return Err(StreamError::Misuse("a chunk fits its slot"));
        };
        let index = self.free_slot(deadline)?.index();
        self.shared.send(SendSlot::Relay { index, chunk: Some(Arc::clone(chunk)) }, length, chunk.digest())
    }

    fn free_slot(&mut self, deadline: Instant) -> Result<SendSlot, StreamError> {
        self.require_connection()?;
        self.shared.waiting.wait(deadline, "a free slot", SendState::take_free)
    }

    /// Announces the end and waits until the receiver has returned every slot and knows the end. After
    /// `DeadlineExceeded` it may be called again.
    ///
    /// # Errors
    /// `DeadlineExceeded`; `Misuse` without a connection; else the stream's failure.
    pub fn finish(&mut self, deadline: Instant) -> Result<(), StreamError> {
        let target = self.require_connection()?;
        let count = self.shared.waiting.lock().announce_end();
        self.shared.link.notify(Arc::clone(&target.peer), Message::End { count }.encode(target.stream));
        let complete = |state: &mut SendState<SendSlot>| state.is_complete().then_some(());
        self.shared.waiting.wait(deadline, "the receiver's last answers", complete)?;
        self.shared.link.notify(Arc::clone(&target.peer), Message::Farewell { count }.encode(target.stream));
        Ok(())
    }

    /// What the receiver answers, to be read by any thread.
    pub fn answers(&self) -> AnswerReceiver {
        AnswerReceiver(Arc::clone(&self.shared))
    }

    /// How many answers the receiver has given so far. While it grows the receiver is at work, also when it returns no slot.
    pub fn answered(&self) -> u64 {
        self.shared.waiting.lock().answered()
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
        self.shared.fail(StreamError::Closed);
        if let Some(endpoint) = self.shared.endpoint.get() {
            self.shared.link.close(*endpoint);
        }
        // The session keeps the memory as long as NIXL may read it.
        if !self.shared.is_relay {
            self.shared.link.release(self.shared.region);
        }
    }
}
