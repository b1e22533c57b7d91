//! The session and the stream between real processes over real NIXL. This process only conducts: it never loads NIXL
//! itself, for that may crash a process at its exit. Each end is this test binary again, in the role of `child`.

#[path = "real_nixl/child.rs"]
mod child_roles;
#[path = "real_nixl/peer.rs"]
mod peer;

use std::error::Error;
use std::time::{Duration, Instant};

use peer::{Peer, exchange};

type Outcome = Result<(), Box<dyn Error>>;

/// Not a test of its own: the body of the processes that the others start.
#[test]
#[ignore = "a role for the processes that the other tests start"]
fn child() {
    child_roles::run();
}

#[test]
fn bytes_arrive_verified_although_they_started_before_the_receiver_was_connected() -> Outcome {
    let mut receiver = Peer::start("receive", &[])?;
    let mut sender = Peer::start("send", &[])?;
    let offer = receiver.expect("offer")?;
    let agent = sender.expect("agent")?;
    sender.say(&offer)?;
    // Every slot was written before the receiver knows whom it is talking to.
    sender.expect("filled")?;
    receiver.say(&agent)?;
    assert_eq!(receiver.expect("done")?, "bytes=33554439 resent=0 refused=0");
    assert_eq!(sender.expect("done")?, "bytes=33554439 resent=0 refused=0");
    receiver.ends_well()?;
    sender.ends_well()
}

#[test]
fn answers_go_back_in_order_before_the_first_chunk() -> Outcome {
    let mut receiver = Peer::start("receive", &[("ANSWERS", "500")])?;
    let mut sender = Peer::start("send", &[("ANSWERS", "500")])?;
    exchange(&mut receiver, &mut sender)?;
    sender.expect("filled")?;
    assert_eq!(receiver.expect("done")?, "bytes=33554439 resent=0 refused=0");
    assert_eq!(sender.expect("done")?, "bytes=33554439 resent=0 refused=0");
    receiver.ends_well()?;
    sender.ends_well()
}

#[test]
fn one_session_serves_two_receivers_at_once() -> Outcome {
    let mut receivers = [Peer::start("receive", &[])?, Peer::start("receive", &[])?];
    let mut sender = Peer::start("send", &[("RECEIVERS", "2")])?;
    let agent = sender.expect("agent")?;
    for receiver in &mut receivers {
        sender.say(&receiver.expect("offer")?)?;
        receiver.say(&agent)?;
    }
    sender.expect("filled")?;
    for mut receiver in receivers {
        assert_eq!(receiver.expect("done")?, "bytes=33554439 resent=0 refused=0");
        assert_eq!(sender.expect("done")?, "bytes=33554439 resent=0 refused=0");
        receiver.ends_well()?;
    }
    sender.ends_well()
}

/// The ends of a chain of three, connected.
fn chain(settings: &[(&str, &str)]) -> Result<[Peer; 3], Box<dyn Error>> {
    let mut last = Peer::start("receive", settings)?;
    let mut relay = Peer::start("relay", &[])?;
    let mut first = Peer::start("send", &[])?;
    assert_eq!(relay.expect("memory")?, "0");
    first.say(&relay.expect("offer")?)?;
    last.say(&relay.expect("agent")?)?;
    relay.say(&last.expect("offer")?)?;
    relay.say(&first.expect("agent")?)?;
    Ok([first, relay, last])
}

#[test]
fn a_relay_sends_on_from_the_slots_it_received_into() -> Outcome {
    let [mut first, mut relay, mut last] = chain(&[])?;
    first.expect("filled")?;
    let all = "bytes=33554439 resent=0 refused=0";
    assert_eq!(last.expect("done")?, all);
    assert_eq!(relay.expect("forwarded")?, all);
    assert_eq!(relay.expect("done")?, all);
    assert_eq!(first.expect("done")?, all);
    [first, relay, last].into_iter().try_for_each(Peer::ends_well)
}

#[test]
fn a_relay_whose_next_process_dies_receives_on() -> Outcome {
    let [mut first, mut relay, mut last] = chain(&[("HOLD_AFTER", "20")])?;
    last.expect("holding")?;
    last.kill()?;
    let onward = relay.expect("onward")?;
    assert!(onward.starts_with("PeerLost"), "{onward}");
    first.expect("filled")?;
    for end in [&mut relay, &mut first] {
        assert_eq!(end.expect("done")?, "bytes=33554439 resent=0 refused=0");
    }
    [first, relay].into_iter().try_for_each(Peer::ends_well)
}

#[test]
fn a_damaged_chunk_is_found_and_sent_again() -> Outcome {
    let mut receiver = Peer::start("receive", &[])?;
    let mut sender = Peer::start("send", &[("CORRUPT", "17:2")])?;
    exchange(&mut receiver, &mut sender)?;
    sender.expect("filled")?;
    assert_eq!(receiver.expect("done")?, "bytes=33554439 resent=2 refused=0");
    assert_eq!(sender.expect("done")?, "bytes=33554439 resent=2 refused=0");
    receiver.ends_well()?;
    sender.ends_well()
}

#[test]
fn a_chunk_that_stays_damaged_fails_both_ends() -> Outcome {
    let mut receiver = Peer::start("receive", &[])?;
    let mut sender = Peer::start("send", &[("CORRUPT", "17:100")])?;
    exchange(&mut receiver, &mut sender)?;
    sender.expect("filled")?;
    assert_eq!(receiver.expect("error")?, "Integrity { sequence: 17, attempts: 4 }");
    assert_eq!(sender.expect("error")?, "Integrity { sequence: 17, attempts: 4 }");
    Ok(())
}

#[test]
fn a_killed_receiver_is_noticed_in_seconds() -> Outcome {
    let mut receiver = Peer::start("receive", &[("HOLD_AFTER", "20")])?;
    let mut sender = Peer::start("send", &[])?;
    exchange(&mut receiver, &mut sender)?;
    receiver.expect("holding")?;
    receiver.kill()?;
    let since = Instant::now();
    sender.expect("filled")?;
    let error = sender.expect("error")?;
    assert!(error.starts_with("PeerLost"), "{error}");
    assert!(since.elapsed() < Duration::from_secs(10), "took {:?}", since.elapsed());
    Ok(())
}

#[test]
fn a_killed_sender_is_noticed_in_seconds() -> Outcome {
    let mut receiver = Peer::start("receive", &[])?;
    let mut sender = Peer::start("send", &[("HOLD_AFTER", "20")])?;
    exchange(&mut receiver, &mut sender)?;
    sender.expect("filled")?;
    sender.expect("holding")?;
    sender.kill()?;
    let since = Instant::now();
    let error = receiver.expect("error")?;
    assert!(error.starts_with("PeerLost"), "{error}");
    assert!(since.elapsed() < Duration::from_secs(10), "took {:?}", since.elapsed());
    Ok(())
}

#[test]
fn a_receiver_that_dies_leaves_the_senders_other_receiver_alone() -> Outcome {
    let mut dying = Peer::start("receive", &[("HOLD_AFTER", "20")])?;
    let mut living = Peer::start("receive", &[])?;
    let mut sender = Peer::start("send", &[("RECEIVERS", "2")])?;
    let agent = sender.expect("agent")?;
    for receiver in [&mut dying, &mut living] {
        sender.say(&receiver.expect("offer")?)?;
        receiver.say(&agent)?;
    }
    dying.expect("holding")?;
    dying.kill()?;
    sender.expect("filled")?;
    let error = sender.expect("error")?;
    assert!(error.starts_with("PeerLost"), "{error}");
    assert_eq!(living.expect("done")?, "bytes=33554439 resent=0 refused=0");
    assert_eq!(sender.expect("done")?, "bytes=33554439 resent=0 refused=0");
    Ok(())
}

#[test]
fn a_stopped_receiver_ends_in_the_callers_deadline() -> Outcome {
    let mut receiver = Peer::start("receive", &[("HOLD_AFTER", "20")])?;
    let mut sender = Peer::start("send", &[("DEADLINE_MS", "1500")])?;
    exchange(&mut receiver, &mut sender)?;
    receiver.expect("holding")?;
    receiver.stop()?;
    sender.expect("filled")?;
    assert_eq!(sender.expect("error")?, "DeadlineExceeded(\"a free slot\")");
    Ok(())
}

#[test]
fn an_offer_that_does_not_fit_is_refused_before_anything_moves() -> Outcome {
    let mut receiver = Peer::start("receive", &[("SLOTS", "7")])?;
    let mut sender = Peer::start("send", &[])?;
    exchange(&mut receiver, &mut sender)?;
    assert_eq!(sender.expect("error")?, "Malformed(\"the receiver has 7 slots, this sender 8\")");
    Ok(())
}

#[test]
fn waits_end_when_aborted_and_when_the_session_ends() -> Outcome {
    let mut child = Peer::start("abort", &[])?;
    assert_eq!(child.expect("next")?, "Closed");
    assert_eq!(child.expect("session")?, "Closed");
    child.ends_well()
}

#[test]
fn an_active_side_exposes_no_memory_and_a_warm_session_has_no_backend() -> Outcome {
    let mut child = Peer::start("warm", &[])?;
    assert_eq!(child.expect("before")?, "the backend was not created yet");
    assert_eq!(child.expect("dram")?, "true");
    assert_eq!(child.expect("sections")?, "0");
    assert_eq!(child.expect("twice")?, "the backend exists already");
    assert_eq!(child.expect("version")?, "true");
    child.ends_well()
}

/// A warm worker has its plugins loaded before anybody knows which transports its run will use.
#[test]
fn transports_can_be_chosen_between_the_start_and_the_backend() -> Outcome {
    let mut lengths = Vec::new();
    for later in ["", "tcp"] {
        let mut child = Peer::start("late", &[("UCX_TLS", "all"), ("LATER", later)])?;
        lengths.push(child.expect("address")?.parse::<usize>()?);
        child.ends_well()?;
    }
    assert!(
        lengths[1] < lengths[0],
        "an address with tcp alone is shorter than one with all transports: {lengths:?}"
    );
    Ok(())
}
