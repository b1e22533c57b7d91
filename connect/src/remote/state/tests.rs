//! Slots are numbers here.

use super::*;

const READ: OperationKind = OperationKind::Read;
const WRITE: OperationKind = OperationKind::Write;

fn piece(start: u64, length: usize) -> Piece {
    Piece { start, length }
}

fn free(state: &mut State<u8>) -> Vec<u8> {
    let mut free: Vec<u8> = std::iter::from_fn(|| state.take_free()).collect();
    free.iter().for_each(|slot| state.give_back(*slot));
    free.sort_unstable();
    free
}

#[test]
fn a_slot_is_nobodys_while_nixl_has_it() {
    let mut state = State::new(vec![1, 2]);
    let slot = state.take_free().unwrap();
    let read = state.post(slot, piece(0, 10), READ);
    assert_eq!(free(&mut state), [1]);
    assert_eq!(state.take(read), None);
    // It is not wanted any more, and NIXL writes into it all the same.
    state.unwanted(read);
    assert_eq!(free(&mut state), [1]);
    assert!(!state.is_quiet());
    state.landed(read);
    assert_eq!(free(&mut state), [1, 2]);
    assert!(state.is_quiet());
    assert_eq!(state.take(read), None);
}

#[test]
fn what_was_read_is_taken_once_or_left() {
    let mut state = State::new(vec![1, 2]);
    let tokens: Vec<u64> = (0..2)
        .map(|number| {
            let slot = state.take_free().unwrap();
            state.post(slot, piece(number * 10, 10), READ)
        })
        .collect();
    state.landed(tokens[1]);
    assert_eq!(state.take(tokens[0]), None);
    state.landed(tokens[0]);
    assert!(state.is_quiet());
    assert!(free(&mut state).is_empty());
    assert_eq!(state.take(tokens[0]), Some(2));
    assert_eq!(state.take(tokens[0]), None);
    state.unwanted(tokens[1]);
    assert_eq!(free(&mut state), [1]);
}

#[test]
fn bytes_on_their_way_to_the_peer_are_in_the_way_of_others_for_the_same_place() {
    let mut state = State::new(vec![1, 2]);
    let slot = state.take_free().unwrap();
    let write = state.post(slot, piece(100, 10), WRITE);
    let slot = state.take_free().unwrap();
    state.post(slot, piece(200, 10), READ);
    for (start, length, clear) in
        [(90, 10, true), (90, 11, false), (109, 1, false), (110, 5, true), (0, 500, false)]
    {
        assert_eq!(state.is_clear(piece(start, length)), clear, "{length} at {start}");
    }
    assert!(state.is_clear(piece(200, 10)));
    assert!(!state.is_flushed());
    state.landed(write);
    assert!(state.is_clear(piece(0, 150)));
    assert!(state.is_flushed() && !state.is_quiet());
    assert_eq!(free(&mut state), [2]);
}

#[test]
fn after_a_fault_nothing_succeeds_and_the_first_one_stays() {
    let mut state = State::new(vec![1, 2]);
    let slot = state.take_free().unwrap();
    let read = state.post(slot, piece(0, 10), READ);
    state.landed(read);
    assert!(state.is_flushed());
    state.fail(RemoteError::Closed);
    state.fail(RemoteError::Misuse("later"));
    assert!(matches!(state.fault(), Some(RemoteError::Closed)));
    assert_eq!(state.take(read), None);
    assert_eq!(state.take_free(), None);
    assert!(!state.is_quiet() && !state.is_flushed());
    // What the peer was told, it was told.
    assert!(state.has_landed(read));
}

#[test]
fn what_the_session_opens_too_late_is_given_back() {
    let mut state = State::new(vec![1]);
    assert!(state.open(Opened::numbered(1)).is_none());
    assert!(state.give_up().is_some());
    let mut late = State::new(vec![1]);
    assert!(late.give_up().is_none());
    assert!(late.open(Opened::numbered(2)).is_some());
}
