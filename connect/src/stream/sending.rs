//! What a sender shares with the session's thread: posts chunks, takes the receiver's answers. Never blocks.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::StreamError;
use super::message::Message;
use super::progress::Progress;
use super::send_slot::SendSlot;
use super::send_state::{Effect, SendState};
use super::target::Target;
use crate::device::Device;
use crate::memory::Ring;
use crate::metadata::{OperationKind, SerializedDescriptor};
use crate::session::{Claim, Endpoint, EndpointId, Link, Local, RegionId, Transfer};
use crate::waiting::{Faulty, Waiting};

pub(super) struct Sending {
    pub(super) waiting: Arc<Waiting<SendState<SendSlot>>>,
    pub(super) link: Link,
    pub(super) region: RegionId,
    /// A relay has no memory: the region is a receiver's.
    pub(super) is_relay: bool,
    pub(super) ring: Ring,
    pub(super) target: OnceLock<Target>,
    pub(super) endpoint: OnceLock<EndpointId>,
    pub(super) progress: Arc<Progress>,
    #[cfg(feature = "fault-injection")]
    pub(super) corruption: std::sync::Mutex<super::corruption::Corruption>,
}

impl std::fmt::Debug for Sending {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let peer = self.target.get().map(|target| &target.peer);
        formatter
            .debug_struct("Sending")
            .field("ring", &self.ring)
            .field("peer", &peer)
            .finish_non_exhaustive()
    }
}

impl Sending {
    /// Numbers the slot's chunk and posts it.
    pub(super) fn send(&self, slot: SendSlot, length: u32, digest: u64) -> Result<u64, StreamError> {
        let mut state = self.waiting.lock();
        let index = slot.index();
        match state.begin(slot, index, length, digest) {
            Ok(sequence) => {
                self.post(&mut state, sequence);
                Ok(sequence)
            }
            Err((mut slot, error)) => {
                slot.empty();
                state.give_back(slot);
                Err(error)
            }
        }
    }

    /// Posts the chunk with this number from its slot, for the first time or again.
    fn post(&self, state: &mut SendState<SendSlot>, sequence: u64) {
        let at_once = state.may_announce_at_once();
        let (Some(target), Some(endpoint), Some(chunk)) =
            (self.target.get(), self.endpoint.get(), state.outstanding(sequence))
        else {
            return;
        };
        #[cfg(feature = "fault-injection")]
        if let SendSlot::Own(slot) = &mut chunk.slot {
            self.corruption
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .before_write(sequence, slot);
        }
        let (Some(remote), Some(local)) = (target.slots.get(chunk.index as usize), chunk.slot.address())
        else {
            return;
        };
        let message =
            Message::Chunk { sequence, slot: chunk.index, length: chunk.length, digest: chunk.digest };
        let message = message.encode(target.stream);
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
            local: vec![Local { region: self.region, memory: range(local) }],
            remote: vec![range(*remote)],
            message: (!at_once).then(|| message.clone()),
            in_flight: Vec::new(),
        });
        if at_once {
            self.link.notify(Arc::clone(&target.peer), message);
        }
    }

    fn apply(&self, state: &mut SendState<SendSlot>, effect: Result<Effect, StreamError>) {
        match effect {
            Ok(Effect::Nothing) => {}
            Ok(Effect::Through { length }) => {
                self.progress.chunk(length as usize);
                state.last_freed().into_iter().for_each(SendSlot::empty);
            }
            // In a relay the slot in which it came goes back to its own sender now: a chain whose every slot waits for the
            // last node's would be slower with each node.
            Ok(Effect::Spent { sequence }) => {
                state.outstanding(sequence).into_iter().for_each(|chunk| chunk.slot.empty());
            }
            Ok(Effect::Resend { sequence }) => {
                self.progress.resend();
                self.post(state, sequence);
            }
            Err(error) => self.fail_state(state, error),
        }
    }

    pub(super) fn fail(&self, error: StreamError) {
        self.fail_state(&mut self.waiting.lock(), error);
        self.waiting.wake();
    }

    /// A relay that fails must not keep the chunks: their own sender waits for the slots.
    fn fail_state(&self, state: &mut SendState<SendSlot>, error: StreamError) {
        state.fail(error);
        if self.is_relay {
            drop(state.take_outstanding());
        }
    }
}

impl Endpoint for Sending {
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
            Message::Verified { sequence, slot } => state.verified(sequence, slot),
            Message::Reject { sequence, slot } => state.reject(sequence, slot),
            Message::Received { count } => state.end_known(count).map(|()| Effect::Nothing),
            Message::Answer { sequence, text } => state.answer(sequence, text).map(|()| Effect::Nothing),
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
        self.fail(StreamError::Session(format!("chunk {token} could not be posted: {reason}")));
    }

    fn failed(&self, _token: u64) {}

    /// The chunk counts as being written for good, so its slot is never filled again.
    fn stuck(&self, token: u64, reason: &str) {
        self.fail(StreamError::Session(format!("chunk {token} was posted in part at most: {reason}")));
    }

    fn lost(&self, peer: &str, reason: &str) {
        if self.target.get().is_some_and(|target| *target.peer == *peer) {
            self.fail(StreamError::PeerLost { peer: peer.to_owned(), reason: reason.to_owned() });
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
        self.fail(StreamError::Closed);
    }
}
