//! Peers that are killed, stopped, or never come.

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::beginning::PAIRS;
use crate::process::Process;

/// More than the buffers of a socket hold.
const LARGE: &str = "16777216";
/// Within which the death of a peer is noticed on a busy machine.
const SECONDS: Duration = Duration::from_secs(20);

#[test]
fn an_active_operation_fails_when_its_peer_was_killed_before_it_began() -> Outcome {
    for (passive, active) in PAIRS {
        let [mut owner, mut peer] = Process::desks()?;
        let metadata = owner.offer(passive, "64")?;
        owner.kill()?;
        peer.make(active, "64")?;
        // The second time NIXL is not even asked.
        for _ in 0..2 {
            peer.refuses(&format!("{active} {active} {active} {metadata}"), "StalePeer StalePeer")?;
            peer.answers(&format!("access {active}"), "free")?;
        }
        peer.holds_nothing()?;
        peer.ends_well()?;
    }
    Ok(())
}

/// NIXL knows the memory already, and has not asked UCX since the peer died: it takes the transfer and fails to post it. It
/// does not say whether it had begun it, so the memory is nobody's any more.
#[test]
fn an_active_operation_fails_when_its_peer_was_killed_after_another_operation() -> Outcome {
    for (passive, active) in PAIRS {
        let [mut owner, mut peer] = Process::desks()?;
        owner.make(passive, "64")?;
        owner.answers(&format!("register {passive}"), "ok")?;
        owner.answers(&format!("{passive} {passive} {passive}"), "ok")?;
        let metadata = owner.tell(&format!("metadata {passive}"))?;
        peer.begin(active, "64", &metadata)?;
        peer.completes(active)?;
        owner.completes(passive)?;
        owner.answers(&format!("take {passive} {passive}"), "ok")?;
        owner.answers(&format!("{passive} {passive} {passive}"), "ok")?;
        let metadata = owner.tell(&format!("metadata {passive}"))?;
        peer.answers(&format!("drop {active}"), "ok")?;
        peer.offer("readable", "1")?;
        owner.kill()?;
        // The answer to a command comes after the round that followed the one before; UCX notices the end of a connection
        // within a few rounds.
        for _ in 0..20 {
            peer.tell("statistics")?;
        }
        peer.begin(active, "64", &metadata)?;
        fails(&mut peer, active, "PeerLost Retryable")?;
        peer.refuses(&format!("release {active} 30000"), "PeerLost Retryable")?;
        peer.answers(&format!("take {active} {active}"), "kept")?;
        peer.answers(&format!("drop {active}"), "ok")?;
        peer.answers("abandoned", "64")?;
        if active == "write" {
            // The caller's own handle: whoever has it must not write what NIXL may read.
            peer.answers("access write", "in flight")?;
        }
        peer.comes_to("statistics", "endpoints=1 regions=2 in_flight=0 foreign=0")?;
        // Now the metadata is known to be of no use.
        peer.make(active, "64")?;
        peer.refuses(&format!("{active} {active} {active} {metadata}"), "StalePeer StalePeer")?;
        peer.answers(&format!("access {active}"), "free")?;
        peer.ends_well()?;
    }
    Ok(())
}

/// It is stopped first, so the transfer is not over when it dies.
#[test]
fn an_active_operation_fails_when_its_peer_is_killed_while_it_is_in_flight() -> Outcome {
    for (passive, active) in PAIRS {
        let [mut owner, mut peer] = Process::desks()?;
        let metadata = owner.offer(passive, "64")?;
        peer.begin(active, "64", &metadata)?;
        peer.completes(active)?;
        owner.completes(passive)?;
        let metadata = owner.offer(passive, LARGE)?;
        owner.stop()?;
        peer.begin(active, LARGE, &metadata)?;
        peer.refuses(&format!("wait {active} 100"), "DeadlineExceeded Retryable")?;
        peer.answers(&format!("status {active}"), "PROC")?;
        owner.kill()?;
        fails(&mut peer, active, "PeerLost Retryable")?;
        gives_all_back(&mut peer, active)?;
        peer.ends_well()?;
    }
    Ok(())
}

/// The first that fails is the loss of the peer for all of them, and each still hears when NIXL is done with its memory.
#[test]
fn operations_that_fail_with_another_one_give_their_memory_back_too() -> Outcome {
    const COUNT: usize = 3;
    let [mut owner, mut peer] = Process::desks()?;
    let mut offers = Vec::new();
    owner.make("readable", LARGE)?;
    for number in 0..COUNT {
        owner.answers(&format!("readable readable{number} readable"), "ok")?;
        offers.push(owner.tell(&format!("metadata readable{number}"))?);
    }
    owner.stop()?;
    for (number, metadata) in offers.iter().enumerate() {
        peer.answers(&format!("memory read {LARGE} 0"), "ok")?;
        peer.answers(&format!("read read{number} read {metadata}"), "ok")?;
    }
    owner.kill()?;
    for number in 0..COUNT {
        fails(&mut peer, &format!("read{number}"), "PeerLost Retryable")?;
        peer.answers(&format!("release read{number} 30000"), "ok")?;
    }
    // They are over, and need no attention though they are held.
    peer.comes_to("statistics", &format!("endpoints=0 regions={COUNT} in_flight=0 foreign=0"))?;
    for number in 0..COUNT {
        peer.answers(&format!("take read{number} read"), "ok")?;
        peer.answers("access read", "free")?;
    }
    peer.holds_nothing()?;
    peer.ends_well()
}

#[test]
fn a_passive_operation_fails_when_the_expected_sender_is_killed_before_it_began() -> Outcome {
    for (passive, _) in PAIRS {
        let [mut owner, mut peer] = Process::desks()?;
        owner.offer(passive, "64")?;
        owner.answers(&format!("expect {passive} {}", peer.tell("agent")?), "ok")?;
        peer.kill()?;
        fails(&mut owner, passive, "PeerLost Retryable")?;
        // The peer may have had the metadata: nobody can say who has it now.
        owner.answers(&format!("take {passive} {passive}"), "kept")?;
        owner.answers(&format!("drop {passive}"), "ok")?;
        owner.answers("abandoned", "64")?;
        owner.holds_nothing()?;
        owner.ends_well()?;
    }
    Ok(())
}

/// Its transfer began while the owner was stopped; then it is stopped itself, and killed.
#[test]
fn a_passive_operation_fails_when_the_expected_sender_is_killed_while_it_is_in_flight() -> Outcome {
    for (passive, active) in PAIRS {
        let [mut owner, mut peer] = Process::desks()?;
        let metadata = owner.offer(passive, LARGE)?;
        owner.answers(&format!("expect {passive} {}", peer.tell("agent")?), "ok")?;
        owner.stop()?;
        peer.begin(active, LARGE, &metadata)?;
        peer.stop()?;
        owner.go_on()?;
        owner.refuses(&format!("wait {passive} 100"), "DeadlineExceeded Retryable")?;
        owner.answers(&format!("status {passive}"), "INIT")?;
        peer.kill()?;
        fails(&mut owner, passive, "PeerLost Retryable")?;
        owner.ends_well()?;
    }
    Ok(())
}

/// Over TCP a process that is stopped looks like one that is slow.
#[test]
fn a_stopped_peer_is_noticed_by_the_deadline_and_the_operation_goes_on_with_it() -> Outcome {
    for (passive, active) in PAIRS {
        let [mut owner, mut peer] = Process::desks()?;
        let metadata = owner.offer(passive, LARGE)?;
        owner.answers(&format!("expect {passive} {}", peer.tell("agent")?), "ok")?;
        owner.stop()?;
        peer.begin(active, LARGE, &metadata)?;
        peer.refuses(&format!("wait {active} 300"), "DeadlineExceeded Retryable")?;
        peer.answers(&format!("status {active}"), "PROC")?;
        peer.stop()?;
        owner.go_on()?;
        owner.refuses(&format!("wait {passive} 300"), "DeadlineExceeded Retryable")?;
        owner.answers(&format!("status {passive}"), "INIT")?;
        peer.go_on()?;
        peer.completes(active)?;
        owner.completes(passive)?;
        owner.ends_well()?;
        peer.ends_well()?;
    }
    Ok(())
}

#[test]
fn a_passive_wait_ends_at_its_deadline_without_a_peer() -> Outcome {
    let mut owner = Process::desk()?;
    for (passive, _) in PAIRS {
        owner.offer(passive, "64")?;
        for milliseconds in [0, 300] {
            let since = Instant::now();
            owner.refuses(&format!("wait {passive} {milliseconds}"), "DeadlineExceeded Retryable")?;
            let waited = since.elapsed();
            assert!(waited >= Duration::from_millis(milliseconds) && waited < SECONDS, "{waited:?}");
            owner.answers(&format!("status {passive}"), "INIT")?;
        }
    }
    owner.ends_well()
}

#[test]
fn a_peer_that_dies_leaves_the_operations_with_others_alone() -> Outcome {
    let [mut owner, mut dying] = Process::desks()?;
    let mut living = Process::desk()?;
    let metadata = owner.offer("readable", LARGE)?;
    owner.answers(&format!("expect readable {}", dying.tell("agent")?), "ok")?;
    owner.answers("readable other readable", "ok")?;
    let other = owner.tell("metadata other")?;
    dying.begin("read", LARGE, &metadata)?;
    dying.kill()?;
    living.begin("read", LARGE, &other)?;
    living.completes("read")?;
    owner.completes("other")?;
    // The one that was killed may have been fast enough.
    owner.say("wait readable 30000")?;
    let ended = owner.line()?;
    assert!(ended == "ok" || ended.starts_with("!PeerLost Retryable"), "{ended}");
    owner.ends_well()?;
    living.ends_well()
}

fn fails(side: &mut Process, operation: &str, error: &str) -> Outcome {
    let since = Instant::now();
    side.refuses(&format!("wait {operation} 60000"), error)?;
    assert!(since.elapsed() < SECONDS, "took {:?}", since.elapsed());
    side.answers(&format!("status {operation}"), "ERR")?;
    // The failure stays, and is no result.
    side.refuses(&format!("wait {operation} 0"), error)?;
    side.refuses(&format!("results {operation} 1"), "NotComplete Mistake")?;
    side.refuses(&format!("cancel {operation}"), "Ended Mistake").map(drop)
}

/// NIXL says that a transfer with a dead peer has ended, so its memory is the caller's again.
fn gives_all_back(side: &mut Process, active: &str) -> Outcome {
    side.answers(&format!("release {active} 30000"), "ok")?;
    side.answers(&format!("take {active} {active}"), "ok")?;
    side.answers(&format!("access {active}"), "free")?;
    side.holds_nothing()
}
