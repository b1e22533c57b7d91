//! What a sender knows of its slots and chunks, and what each event changes. Pure: no lock, no NIXL, no clock.

use std::collections::{HashMap, VecDeque};

use super::{MAX_RESENDS, StreamError};
use crate::waiting::Faulty;

/// What the event asks of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    /// The chunk is through and its slot free.
    Through {
        length: u32,
    },
    /// The chunk will not be written again: what its slot was filled with is not needed any more.
    Spent {
        sequence: u64,
    },
    /// The chunk must be written again.
    Resend {
        sequence: u64,
    },
}

/// Answers that may wait unread. Their reader asks for one after the other, so a receiver that says more is broken.
const MAX_UNREAD: usize = 16_384;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Credit,
    Reject,
}

/// A chunk whose slot is not free yet.
#[derive(Debug)]
pub(super) struct Outstanding<S> {
    pub(super) slot: S,
    pub(super) index: u32,
    pub(super) length: u32,
    pub(super) digest: u64,
    /// NIXL may still read the slot. The receiver's word alone does not free it.
    writing: bool,
    verified: bool,
    verdict: Option<Verdict>,
    resends: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Announced(u64),
    Known,
}

/// Whether a notification that is sent right behind a chunk's bytes gets there after them. It does where one connection
/// carries both, and NIXL does not promise it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Unknown,
    Kept,
    /// A chunk was not whole when the receiver looked.
    Doubtful,
}

#[derive(Debug)]
pub(super) struct SendState<S> {
    free: Vec<S>,
    order: Order,
    outstanding: HashMap<u64, Outstanding<S>>,
    next_sequence: u64,
    end: End,
    answers: VecDeque<Vec<u8>>,
    next_answer: u64,
    fault: Option<StreamError>,
}

impl<S> SendState<S> {
    pub(super) fn new(slots: Vec<S>) -> Self {
        Self {
            free: slots,
            order: Order::Unknown,
            outstanding: HashMap::new(),
            next_sequence: 0,
            end: End::Open,
            answers: VecDeque::new(),
            next_answer: 0,
            fault: None,
        }
    }

    /// A slot to fill. The one that came back last is the likeliest to be in the cache.
    pub(super) fn take_free(&mut self) -> Option<S> {
        if self.fault.is_some() { None } else { self.free.pop() }
    }

    /// The slot that became free last.
    pub(super) fn last_freed(&mut self) -> Option<&mut S> {
        self.free.last_mut()
    }

    /// After a fault: the slots of chunks that nobody will answer any more.
    pub(super) fn take_outstanding(&mut self) -> Vec<S> {
        if self.fault.is_none() {
            return Vec::new();
        }
        self.outstanding.drain().map(|(_, chunk)| chunk.slot).collect()
    }

    /// A slot that was taken and not sent.
    pub(super) fn give_back(&mut self, slot: S) {
        self.free.push(slot);
    }

    /// Numbers a filled slot's chunk; it is being written from now on.
    pub(super) fn begin(
        &mut self,
        slot: S,
        index: u32,
        length: u32,
        digest: u64,
    ) -> Result<u64, (S, StreamError)> {
        if let Some(fault) = &self.fault {
            return Err((slot, fault.clone()));
        }
        if self.end != End::Open {
            return Err((slot, StreamError::Misuse("a chunk after the end")));
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let chunk = Outstanding {
            slot,
            index,
            length,
            digest,
            writing: true,
            verified: false,
            verdict: None,
            resends: 0,
        };
        self.outstanding.insert(sequence, chunk);
        Ok(sequence)
    }

    /// Whether a chunk may be announced at once, behind its bytes. Else it is announced when they are known to be there: on
    /// a full link that is later by all that was queued there meanwhile, twice.
    pub(super) fn may_announce_at_once(&self) -> bool {
        self.order == Order::Kept
    }

    pub(super) fn outstanding(&mut self, sequence: u64) -> Option<&mut Outstanding<S>> {
        self.outstanding.get_mut(&sequence)
    }

    /// NIXL no longer reads the slot.
    pub(super) fn written(&mut self, sequence: u64) -> Effect {
        match self.outstanding.get_mut(&sequence) {
            Some(chunk) => {
                chunk.writing = false;
                self.settle(sequence)
            }
            None => Effect::Nothing,
        }
    }

    /// The receiver has found the chunk whole, and keeps its slot for now.
    pub(super) fn verified(&mut self, sequence: u64, index: u32) -> Result<Effect, StreamError> {
        match self.outstanding.get_mut(&sequence) {
            Some(chunk) if chunk.index == index && chunk.verdict.is_none() && !chunk.verified => {
                chunk.verified = true;
                self.found_whole();
                Ok(self.settle(sequence))
            }
            _ => Err(StreamError::Malformed("an answer to a chunk that was not sent".to_owned())),
        }
    }

    pub(super) fn credit(&mut self, sequence: u64, index: u32) -> Result<Effect, StreamError> {
        self.judge(sequence, index, Verdict::Credit)
    }

    pub(super) fn reject(&mut self, sequence: u64, index: u32) -> Result<Effect, StreamError> {
        self.judge(sequence, index, Verdict::Reject)
    }

    fn judge(&mut self, sequence: u64, index: u32, verdict: Verdict) -> Result<Effect, StreamError> {
        match self.outstanding.get_mut(&sequence) {
            Some(chunk)
                if chunk.index == index
                    && chunk.verdict.is_none()
                    && !(chunk.verified && verdict == Verdict::Reject) =>
            {
                if verdict == Verdict::Reject && chunk.resends == MAX_RESENDS {
                    return Err(StreamError::Integrity { sequence, attempts: MAX_RESENDS + 1 });
                }
                chunk.verdict = Some(verdict);
                match verdict {
                    Verdict::Credit => self.found_whole(),
                    Verdict::Reject => self.order = Order::Doubtful,
                }
                Ok(self.settle(sequence))
            }
            _ => Err(StreamError::Malformed("an answer to a chunk that was not sent".to_owned())),
        }
    }

    /// The first chunk is announced late, for a connection that is being made may take its first messages by two ways.
    fn found_whole(&mut self) {
        if self.order == Order::Unknown {
            self.order = Order::Kept;
        }
    }

    /// A verdict counts when NIXL is done with the slot too: either may come first.
    fn settle(&mut self, sequence: u64) -> Effect {
        let Some(chunk) = self.outstanding.get_mut(&sequence).filter(|chunk| !chunk.writing) else {
            return Effect::Nothing;
        };
        match chunk.verdict.take() {
            None if chunk.verified => Effect::Spent { sequence },
            None => Effect::Nothing,
            Some(Verdict::Reject) => {
                chunk.resends += 1;
                chunk.writing = true;
                Effect::Resend { sequence }
            }
            Some(Verdict::Credit) => match self.outstanding.remove(&sequence) {
                Some(chunk) => {
                    self.free.push(chunk.slot);
                    Effect::Through { length: chunk.length }
                }
                None => Effect::Nothing,
            },
        }
    }

    /// No more chunks; gives their count. A second call gives the same.
    pub(super) fn announce_end(&mut self) -> u64 {
        if self.end == End::Open {
            self.end = End::Announced(self.next_sequence);
        }
        self.next_sequence
    }

    pub(super) fn end_known(&mut self, count: u64) -> Result<(), StreamError> {
        match self.end {
            End::Announced(announced) if announced == count => self.end = End::Known,
            End::Known if count == self.next_sequence => {}
            _ => return Err(StreamError::Malformed("an answer to an end that was not announced".to_owned())),
        }
        Ok(())
    }

    /// The receiver's user has said something. A number left out is one that was lost on the way.
    pub(super) fn answer(&mut self, sequence: u64, text: Vec<u8>) -> Result<(), StreamError> {
        if sequence != self.next_answer || self.answers.len() >= MAX_UNREAD {
            return Err(StreamError::Malformed(format!(
                "answer {sequence} is not the next one, or too many"
            )));
        }
        self.next_answer += 1;
        self.answers.push_back(text);
        Ok(())
    }

    /// Answers that came so far.
    pub(super) fn answered(&self) -> u64 {
        self.next_answer
    }

    /// The oldest answer that nobody has read.
    pub(super) fn take_answer(&mut self) -> Option<Vec<u8>> {
        self.answers.pop_front()
    }

    /// Every chunk came back and the receiver knows the end.
    pub(super) fn is_complete(&self) -> bool {
        self.end == End::Known && self.outstanding.is_empty()
    }
}

impl<S: Send> Faulty for SendState<S> {
    type Fault = StreamError;

    fn fail(&mut self, error: StreamError) {
        if !self.is_complete() {
            self.fault.get_or_insert(error);
        }
    }

    fn fault(&self) -> Option<&StreamError> {
        self.fault.as_ref()
    }
}

#[cfg(test)]
mod tests;
