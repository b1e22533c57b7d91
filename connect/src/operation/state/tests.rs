//! Whatever order things happen in, the rules of an operation's life hold.

use proptest::prelude::*;

use super::*;

/// All that can happen to an operation, from the session and from its holder.
#[derive(Debug, Clone, Copy)]
enum Event {
    Opened(OperationStatus),
    Refused,
    Transferred,
    Failed,
    Stuck,
    Lost,
    Closed,
    Notified(&'static str),
    Cancel,
    Expect(&'static str),
    GiveUp,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let peer = prop_oneof![Just("one"), Just("other")];
    let status = prop_oneof![Just(OperationStatus::Initialized), Just(OperationStatus::InProgress)];
    let event = prop_oneof![
        3 => status.prop_map(Event::Opened),
        1 => Just(Event::Refused),
        2 => Just(Event::Transferred),
        1 => Just(Event::Failed),
        1 => Just(Event::Stuck),
        1 => Just(Event::Lost),
        1 => Just(Event::Closed),
        2 => peer.clone().prop_map(Event::Notified),
        1 => Just(Event::Cancel),
        1 => peer.prop_map(Event::Expect),
        1 => Just(Event::GiveUp),
    ];
    prop::collection::vec(event, 1..12)
}

/// What a holder can see.
type Seen = (OperationStatus, Option<Result<(), &'static str>>, Option<Arc<str>>);

fn seen(state: &State) -> Seen {
    let outcome = state.outcome().map(|outcome| outcome.map_err(|error| error.name()));
    (state.status(), outcome, state.sender().cloned())
}

/// Whether NIXL has the memory for good, which a wait for its release must not wait for.
fn is_kept(state: &State) -> bool {
    matches!(state.release_outcome(), Some(Err(_)))
}

fn happens(state: &mut State, event: Event) -> Option<Opened> {
    let lost = || OperationError::PeerLost { peer: "one".to_owned(), reason: String::new() };
    match event {
        Event::Opened(status) => return state.open(Opened::numbered(1), status),
        Event::Refused => state.refuse(SessionError::NoAnswer("try").into()),
        Event::Transferred => state.complete(),
        Event::Failed => state.release(),
        Event::Stuck => state.keep(SessionError::NoAnswer("try").into()),
        Event::Lost => state.fail(lost()),
        Event::Closed => state.fail(SessionError::Closed.into()),
        Event::Notified(peer) => state.notified(peer),
        Event::Cancel => drop(state.cancel()),
        Event::Expect(peer) => drop(state.expect(peer.into())),
        Event::GiveUp => return state.give_up(),
    }
    None
}

proptest! {
    #[test]
    fn in_any_order_there_is_one_end_and_it_stays(events in events()) {
        let mut state = State::new();
        for event in events {
            let (before, released, kept) = (seen(&state), state.is_released(), is_kept(&state));
            let cancelled = match event {
                Event::Cancel => Some(state.cancel()),
                other => {
                    happens(&mut state, other);
                    None
                }
            };
            let now = seen(&state);
            if before.0.is_terminal() {
                prop_assert_eq!(&now, &before, "{:?}", event);
            }
            prop_assert_eq!(now.1.is_some(), now.0.is_terminal());
            prop_assert_eq!(now.1 == Some(Ok(())), now.0 == OperationStatus::Complete);
            prop_assert!(state.is_released() || !released, "{:?} takes the memory back", event);
            prop_assert!(!kept || is_kept(&state), "{:?} gives back what NIXL has for good", event);
            prop_assert!(state.is_released() || now.0 != OperationStatus::Complete);
            prop_assert!(!is_kept(&state) || now.0.is_terminal());
            // The session tells nothing any more to what is over.
            let is_settled = state.outcome().is_some() && state.release_outcome().is_some();
            prop_assert_eq!(state.is_over(), is_settled);
            if matches!(event, Event::Stuck) {
                prop_assert_eq!(is_kept(&state), !released);
            }
            match cancelled {
                Some(Ok(())) => prop_assert_eq!(now.0, OperationStatus::Cancelled),
                Some(Err(OperationError::Ended(status))) => prop_assert_eq!(status, before.0),
                Some(other) => prop_assert!(false, "{:?}", other),
                None => prop_assert!(now.0 != OperationStatus::Cancelled || before.0 == now.0),
            }
        }
    }

    #[test]
    fn only_the_expected_agent_completes(events in events()) {
        let mut state = State::new();
        let mut expected = None;
        for event in events {
            let before = state.status();
            match event {
                // Of the two there is one for each kind of operation.
                Event::Transferred => continue,
                Event::Expect(peer) => {
                    let refused = state.expect(peer.into()).is_err();
                    prop_assert_eq!(refused, state.sender().is_some_and(|sender| **sender != *peer));
                    prop_assert_eq!(state.status(), before);
                    expected = Some(peer);
                }
                Event::Notified(peer) => {
                    state.notified(peer);
                    let right = expected.is_none_or(|expected| expected == peer);
                    let end = if right { OperationStatus::Complete } else { OperationStatus::Errored };
                    prop_assert_eq!(state.status(), if before.is_terminal() { before } else { end });
                }
                other => drop(happens(&mut state, other)),
            }
        }
    }

    #[test]
    fn what_the_session_holds_is_given_back_once_if_the_operation_is_dropped(
        mut events in events(), at in any::<prop::sample::Index>(), dropped in any::<prop::sample::Index>(),
    ) {
        // The session answers once, and the operation is dropped once.
        events.retain(|event| !matches!(event, Event::Opened(_) | Event::GiveUp));
        events.insert(at.index(events.len() + 1), Event::Opened(OperationStatus::InProgress));
        events.insert(dropped.index(events.len() + 1), Event::GiveUp);
        let mut state = State::new();
        let given = events.iter().filter_map(|event| happens(&mut state, *event)).count();
        prop_assert_eq!(given, 1);
    }
}
