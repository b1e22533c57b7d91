//! What a receiver knows of its slots and chunks, and what each event changes. Pure: no lock, no NIXL, no clock.
//! Everything a peer says is checked against what it may say at that moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::message::Message;
use super::{MAX_RESENDS, StreamError};
use crate::waiting::Faulty;

/// A chunk as it was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) sequence: u64,
    pub(super) slot: u32,
    pub(super) length: u32,
    pub(super) digest: u64,
}

/// What `next` found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<S> {
    /// The next chunk in order, not verified; its slot is the caller's.
    Chunk(Arrival, S),
    /// All chunks were delivered.
    End,
}

#[derive(Debug)]
enum Place<S> {
    /// The sender may write here.
    Remote(S),
    /// A chunk waits here for its turn.
    Arrived(S),
    /// The caller has it.
    Held,
}

#[derive(Debug)]
pub(super) struct ReceiveState<S> {
    places: Vec<Place<S>>,
    chunk_size: usize,
    arrived: BTreeMap<u64, Arrival>,
    next: u64,
    /// How often the chunk `next` came damaged.
    rejected: u32,
    end: Option<u64>,
    answers: u64,
    peer: Option<Arc<str>>,
    /// What came before the peer's name was known.
    early: Vec<(String, Message)>,
    /// After the end: the sender has said farewell, or is gone. It needs nothing more from here.
    parted: bool,
    fault: Option<StreamError>,
}

impl<S> ReceiveState<S> {
    pub(super) fn new(slots: Vec<S>, chunk_size: usize) -> Self {
        Self {
            places: slots.into_iter().map(Place::Remote).collect(),
            chunk_size,
            arrived: BTreeMap::new(),
            next: 0,
            rejected: 0,
            end: None,
            answers: 0,
            peer: None,
            early: Vec::new(),
            parted: false,
            fault: None,
        }
    }

    pub(super) fn peer(&self) -> Option<&Arc<str>> {
        self.peer.as_ref()
    }

    /// From now on this peer alone is heard. Gives what came early and was its own, and how much was not.
    pub(super) fn connect(&mut self, peer: Arc<str>) -> (Vec<Message>, usize) {
        let early = std::mem::take(&mut self.early);
        let all = early.len();
        let own: Vec<Message> =
            early.into_iter().filter(|(from, _)| **from == *peer).map(|(_, message)| message).collect();
        let foreign = all - own.len();
        self.peer = Some(peer);
        (own, foreign)
    }

    /// Keeps a message that came before `connect`; false when it cannot be the peer's, for a peer says no more than this.
    pub(super) fn keep_early(&mut self, from: &str, message: Message) -> bool {
        let room = 2 * self.places.len() + 8;
        if self.early.len() >= room {
            return false;
        }
        if !matches!(message, Message::Alive { .. }) {
            self.early.push((from.to_owned(), message));
        }
        true
    }

    pub(super) fn chunk(&mut self, arrival: Arrival) -> Result<(), StreamError> {
        let malformed =
            |what: &str| Err(StreamError::Malformed(format!("chunk {}: {what}", arrival.sequence)));
        if arrival.length == 0 || arrival.length as usize > self.chunk_size {
            return malformed("its length does not fit the slot");
        }
        // A sender has no more chunks outstanding than slots, and the chunk `next` is outstanding.
        let window = self.next..self.next.saturating_add(self.places.len() as u64);
        if !window.contains(&arrival.sequence) || self.arrived.contains_key(&arrival.sequence) {
            return malformed("it is not among those that can come now");
        }
        if self.end.is_some_and(|count| arrival.sequence >= count) {
            return malformed("it comes after the announced end");
        }
        let Some(place) = self.places.get_mut(arrival.slot as usize) else {
            return malformed("there is no such slot");
        };
        match std::mem::replace(place, Place::Held) {
            Place::Remote(slot) => *place = Place::Arrived(slot),
            other => {
                *place = other;
                return malformed("its slot is in use");
            }
        }
        self.arrived.insert(arrival.sequence, arrival);
        Ok(())
    }

    pub(super) fn end(&mut self, count: u64) -> Result<(), StreamError> {
        let beyond = self.arrived.last_key_value().is_some_and(|(sequence, _)| *sequence >= count);
        if self.end.is_some_and(|known| known != count) || self.next > count || beyond {
            return Err(StreamError::Malformed(format!(
                "an end after {count} chunks does not fit what came"
            )));
        }
        self.end = Some(count);
        Ok(())
    }

    /// The sender has all it needs. It can say so only after the last chunk was used.
    pub(super) fn farewell(&mut self, count: u64) -> Result<(), StreamError> {
        if self.end != Some(count) || !self.is_complete() {
            return Err(StreamError::Malformed("a farewell before the end".to_owned()));
        }
        self.parted = true;
        Ok(())
    }

    /// The number of the next answer.
    pub(super) fn number_answer(&mut self) -> u64 {
        self.answers += 1;
        self.answers - 1
    }

    pub(super) fn has_parted(&self) -> bool {
        self.parted
    }

    /// The next chunk in order or the end, if it is there. What arrived before the peer was lost is still delivered.
    pub(super) fn next(&mut self) -> Option<Next<S>> {
        if matches!(&self.fault, Some(fault) if !matches!(fault, StreamError::PeerLost { .. }))
            || self.peer.is_none()
        {
            return None;
        }
        if self.is_complete() {
            return Some(Next::End);
        }
        let arrival = self.arrived.remove(&self.next)?;
        let place = self.places.get_mut(arrival.slot as usize)?;
        match std::mem::replace(place, Place::Held) {
            Place::Arrived(slot) => Some(Next::Chunk(arrival, slot)),
            other => {
                *place = other;
                None
            }
        }
    }

    /// The chunk that `next` gave is whole.
    pub(super) fn accept(&mut self) {
        self.next += 1;
        self.rejected = 0;
    }

    /// The chunk that `next` gave is damaged: its slot is the sender's again, or the stream is over.
    pub(super) fn reject(&mut self, arrival: Arrival, slot: S) -> Result<(), StreamError> {
        self.give_back(arrival.slot, slot);
        self.rejected += 1;
        if self.rejected > MAX_RESENDS {
            return Err(StreamError::Integrity { sequence: arrival.sequence, attempts: self.rejected });
        }
        Ok(())
    }

    /// The caller is done with a slot.
    pub(super) fn give_back(&mut self, index: u32, slot: S) {
        if let Some(place) = self.places.get_mut(index as usize) {
            *place = Place::Remote(slot);
        }
    }

    /// All chunks were delivered.
    pub(super) fn is_complete(&self) -> bool {
        self.end == Some(self.next)
    }
}

impl<S: Send> Faulty for ReceiveState<S> {
    type Fault = StreamError;

    fn fail(&mut self, error: StreamError) {
        if self.is_complete() {
            self.parted = true;
        } else {
            self.fault.get_or_insert(error);
        }
    }

    fn fault(&self) -> Option<&StreamError> {
        self.fault.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(sequence: u64, slot: u32) -> Arrival {
        Arrival { sequence, slot, length: 5, digest: 1 }
    }

    fn connected() -> ReceiveState<u32> {
        let mut state = ReceiveState::new(vec![0, 1], 8);
        state.connect("sender".into());
        state
    }

    #[test]
    fn chunks_come_out_in_order_whatever_the_order_of_arrival() {
        let mut state = connected();
        assert_eq!(state.chunk(arrival(1, 0)), Ok(()));
        assert_eq!(state.next(), None);
        assert_eq!(state.chunk(arrival(0, 1)), Ok(()));
        assert_eq!(state.next(), Some(Next::Chunk(arrival(0, 1), 1)));
        state.accept();
        assert_eq!(state.next(), Some(Next::Chunk(arrival(1, 0), 0)));
        state.accept();
        assert_eq!(state.next(), None);
        assert_eq!(state.end(2), Ok(()));
        assert_eq!(state.next(), Some(Next::End));
        assert_eq!(state.next(), Some(Next::End));
        assert!(!state.has_parted());
        assert_eq!(state.farewell(2), Ok(()));
        assert!(state.has_parted());
    }

    #[test]
    fn what_a_sender_may_not_say_is_malformed() {
        let cases: [(&str, Arrival); 6] = [
            ("slot in use", arrival(1, 0)),
            ("no such slot", arrival(1, 2)),
            ("same sequence again", arrival(0, 1)),
            ("beyond the window", arrival(2, 1)),
            ("no bytes", Arrival { length: 0, ..arrival(1, 1) }),
            ("too many bytes", Arrival { length: 9, ..arrival(1, 1) }),
        ];
        for (what, bad) in cases {
            let mut state = connected();
            assert_eq!(state.chunk(arrival(0, 0)), Ok(()));
            assert!(matches!(state.chunk(bad), Err(StreamError::Malformed(_))), "{what}");
        }
        let mut state = connected();
        assert_eq!(state.chunk(arrival(1, 0)), Ok(()));
        assert!(state.end(1).is_err(), "an end before a chunk that came");
        assert_eq!(state.end(2), Ok(()));
        assert!(state.end(3).is_err(), "another end");
        assert!(state.farewell(2).is_err(), "a farewell before the last chunk was used");
    }

    #[test]
    fn a_damaged_chunk_may_come_again_and_not_for_ever() {
        let mut state = connected();
        for attempt in 0..=MAX_RESENDS {
            assert_eq!(state.chunk(arrival(0, 0)), Ok(()));
            let Some(Next::Chunk(arrival, slot)) = state.next() else {
                panic!("attempt {attempt}: nothing came")
            };
            let result = state.reject(arrival, slot);
            assert_eq!(result.is_err(), attempt == MAX_RESENDS);
        }
    }

    #[test]
    fn early_messages_are_kept_for_the_peer_alone_and_bounded() {
        let mut state: ReceiveState<u32> = ReceiveState::new(vec![0], 8);
        assert!(state.keep_early("sender", Message::End { count: 1 }));
        assert!(state.keep_early("other", Message::End { count: 2 }));
        let kept = (0..100).filter(|_| state.keep_early("other", Message::End { count: 3 })).count();
        assert!(kept < 20);
        let (own, foreign) = state.connect("sender".into());
        assert_eq!(own, [Message::End { count: 1 }]);
        assert_eq!(foreign, kept + 1);
    }

    #[test]
    fn what_arrived_before_the_peer_was_lost_is_delivered_first() {
        let mut state = connected();
        assert_eq!(state.chunk(arrival(0, 0)), Ok(()));
        state.fail(StreamError::PeerLost { peer: "sender".to_owned(), reason: "gone".to_owned() });
        assert!(matches!(state.next(), Some(Next::Chunk(..))));
        state.accept();
        assert_eq!(state.next(), None);
        assert!(state.fault().is_some());
    }
}
