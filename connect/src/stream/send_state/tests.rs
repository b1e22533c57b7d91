use super::*;

fn sent() -> (SendState<&'static str>, u64) {
    let mut state = SendState::new(vec!["slot"]);
    let slot = state.take_free().unwrap_or("none");
    let sequence = state.begin(slot, 0, 10, 99).unwrap_or(u64::MAX);
    (state, sequence)
}

#[test]
fn a_slot_is_free_when_both_nixl_and_the_receiver_are_done() {
    for credit_first in [true, false] {
        let (mut state, sequence) = sent();
        assert_eq!(state.take_free(), None);
        let (early, late) = if credit_first {
            (state.credit(sequence, 0), Ok(state.written(sequence)))
        } else {
            (Ok(state.written(sequence)), state.credit(sequence, 0))
        };
        assert_eq!(early, Ok(Effect::Nothing));
        assert_eq!(late, Ok(Effect::Through { length: 10 }));
        assert_eq!(state.take_free(), Some("slot"));
    }
}

#[test]
fn a_rejected_chunk_is_resent_from_its_slot_and_not_for_ever() {
    let (mut state, sequence) = sent();
    for _ in 0..MAX_RESENDS {
        assert_eq!(state.written(sequence), Effect::Nothing);
        assert_eq!(state.reject(sequence, 0), Ok(Effect::Resend { sequence }));
        assert_eq!(state.take_free(), None);
    }
    state.written(sequence);
    assert_eq!(
        state.reject(sequence, 0),
        Err(StreamError::Integrity { sequence, attempts: MAX_RESENDS + 1 })
    );
}

#[test]
fn what_is_verified_is_spent_and_its_slot_is_free_later() {
    for verified_first in [true, false] {
        let (mut state, sequence) = sent();
        let last = if verified_first {
            assert_eq!(state.verified(sequence, 0), Ok(Effect::Nothing), "NIXL still reads it");
            Ok(state.written(sequence))
        } else {
            assert_eq!(state.written(sequence), Effect::Nothing);
            state.verified(sequence, 0)
        };
        assert_eq!(last, Ok(Effect::Spent { sequence }));
        assert_eq!(state.take_free(), None, "the receiver has not given it back");
        assert!(state.verified(sequence, 0).is_err(), "twice");
        assert!(state.reject(sequence, 0).is_err(), "after it was found whole");
        assert_eq!(state.credit(sequence, 0), Ok(Effect::Through { length: 10 }));
    }
}

#[test]
fn chunks_are_announced_at_once_from_the_first_whole_one_to_the_first_damaged_one() {
    let mut state = SendState::new(vec!["slot"]);
    let send = |state: &mut SendState<_>| {
        let slot = state.take_free().unwrap_or("none");
        let sequence = state.begin(slot, 0, 10, 99).unwrap_or(u64::MAX);
        state.written(sequence);
        sequence
    };
    assert!(!state.may_announce_at_once());
    let first = send(&mut state);
    assert!(state.credit(first, 0).is_ok());
    assert!(state.may_announce_at_once());
    let second = send(&mut state);
    assert!(state.reject(second, 0).is_ok());
    assert!(!state.may_announce_at_once());
    state.written(second);
    assert!(state.credit(second, 0).is_ok());
    assert!(!state.may_announce_at_once(), "for good");
}

#[test]
fn answers_to_nothing_are_malformed() {
    let (mut state, sequence) = sent();
    for answer in [state.credit(sequence, 1), state.credit(sequence + 1, 0), state.reject(sequence + 1, 0)] {
        assert!(matches!(answer, Err(StreamError::Malformed(_))));
    }
    assert_eq!(state.credit(sequence, 0), Ok(Effect::Nothing));
    assert!(state.credit(sequence, 0).is_err(), "a second credit before the first took effect");
    assert!(state.end_known(1).is_err());
}

#[test]
fn answers_come_in_order_and_none_may_be_missing() {
    let (mut state, _) = sent();
    assert_eq!(state.answer(0, vec![1]), Ok(()));
    assert_eq!(state.answer(1, vec![2]), Ok(()));
    assert!(state.answer(1, vec![3]).is_err(), "twice");
    assert!(state.answer(3, vec![3]).is_err(), "one is missing");
    assert_eq!([state.take_answer(), state.take_answer()], [Some(vec![1]), Some(vec![2])]);
    assert_eq!(state.take_answer(), None);
    let unread = (2..).take_while(|sequence| state.answer(*sequence, vec![0]).is_ok()).count();
    assert_eq!(unread, MAX_UNREAD);
}

#[test]
fn complete_means_all_credits_and_a_known_end() {
    let (mut state, sequence) = sent();
    assert_eq!(state.announce_end(), 1);
    assert!(state.begin("other", 1, 1, 1).is_err());
    assert!(state.end_known(2).is_err());
    assert_eq!(state.end_known(1), Ok(()));
    assert!(!state.is_complete());
    state.written(sequence);
    assert_eq!(state.credit(sequence, 0), Ok(Effect::Through { length: 10 }));
    assert!(state.is_complete());
    state.fail(StreamError::Closed);
    assert_eq!(state.fault(), None, "what is complete cannot fail any more");
}
