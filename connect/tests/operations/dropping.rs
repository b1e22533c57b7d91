//! Operations that are dropped in flight: their memory stays until NIXL is done with it, and not longer.

use crate::Outcome;
use crate::beginning::PAIRS;
use crate::process::Process;

/// More than the buffers of a socket hold.
const LARGE: &str = "16777216";

#[test]
fn a_read_dropped_in_flight_keeps_its_memory_until_nixl_is_done_with_it() -> Outcome {
    let [mut owner, mut peer] = Process::desks()?;
    let metadata = owner.offer("readable", LARGE)?;
    owner.stop()?;
    peer.begin("read", LARGE, &metadata)?;
    peer.answers("drop read", "ok")?;
    // Its endpoint goes, its memory does not.
    peer.comes_to("statistics", "endpoints=0 regions=1 in_flight=1 foreign=0")?;
    owner.go_on()?;
    peer.holds_nothing()?;
    peer.answers("abandoned", "0")?;
    owner.ends_well()?;
    peer.ends_well()
}

#[test]
fn memory_that_is_shared_cannot_be_written_while_a_dropped_write_is_in_flight() -> Outcome {
    let [mut owner, mut peer] = Process::desks()?;
    let metadata = owner.offer("writable", LARGE)?;
    owner.stop()?;
    peer.begin("write", LARGE, &metadata)?;
    peer.answers("access write", "held")?;
    peer.answers("drop write", "ok")?;
    peer.comes_to("statistics", "endpoints=0 regions=1 in_flight=1 foreign=0")?;
    peer.answers("access write", "in flight")?;
    owner.go_on()?;
    peer.holds_nothing()?;
    peer.answers("access write", "free")?;
    owner.completes("writable")?;
    owner.ends_well()?;
    peer.ends_well()
}

/// The transfer is in flight for certain: it began while the owner was stopped, and its peer is stopped when the owner goes on.
#[test]
fn a_passive_operation_dropped_in_flight_leaves_its_memory_to_the_peer() -> Outcome {
    for (passive, active) in PAIRS {
        let [mut owner, mut peer] = Process::desks()?;
        keep_listening(&mut owner)?;
        let metadata = owner.offer(passive, LARGE)?;
        owner.stop()?;
        peer.begin(active, LARGE, &metadata)?;
        peer.stop()?;
        owner.go_on()?;
        owner.answers(&format!("drop {passive}"), "ok")?;
        owner.answers("abandoned", LARGE)?;
        owner.comes_to("statistics", "endpoints=1 regions=1 in_flight=0 foreign=0")?;
        // If its memory were free, these would get it.
        for number in 0..3 {
            owner.answers(&format!("memory new{number} {LARGE} 9"), "ok")?;
        }
        peer.go_on()?;
        peer.completes(active)?;
        for number in 0..3 {
            owner.answers(&format!("compare new{number} 9"), "equal")?;
        }
        if passive == "readable" {
            // The caller's own handle stays shared with the peer.
            owner.answers("access readable", "held")?;
        }
        owner.ends_well()?;
        peer.ends_well()?;
    }
    Ok(())
}

/// The session has the last hold on the memory, so its thread drops the owner.
#[test]
fn an_owner_that_panics_when_it_is_dropped_does_not_end_the_session() -> Outcome {
    let [mut owner, mut peer] = Process::desks()?;
    owner.answers("memory whole 64 1", "ok")?;
    owner.answers("touchy readable whole 64", "ok")?;
    owner.answers("readable readable readable", "ok")?;
    owner.answers("forget readable", "ok")?;
    owner.answers("drop readable", "ok")?;
    owner.holds_nothing()?;
    let metadata = owner.offer("readable", "64")?;
    peer.begin("read", "64", &metadata)?;
    peer.completes("read")?;
    owner.completes("readable")?;
    owner.ends_well()?;
    peer.ends_well()
}

/// Every other time the session has answered when it is dropped; else both orders occur.
const ROUNDS: usize = 50;

#[test]
fn a_passive_operation_dropped_as_it_starts_leaves_nothing() -> Outcome {
    let mut owner = Process::desk()?;
    for round in 0..ROUNDS {
        for (passive, _) in PAIRS {
            owner.make(passive, "64,64")?;
            owner.answers(&format!("soon {passive} {passive} {passive}"), "ok")?;
            if round % 2 == 0 {
                // The answer of a later command.
                owner.tell("statistics")?;
            }
            owner.answers(&format!("drop {passive}"), "ok")?;
        }
    }
    owner.holds_nothing()?;
    owner.answers("access readable", "free")?;
    owner.answers("abandoned", "0")?;
    owner.ends_well()
}

#[test]
fn an_active_operation_dropped_as_it_starts_leaves_nothing() -> Outcome {
    let [mut owner, mut peer] = Process::desks()?;
    keep_listening(&mut owner)?;
    for round in 0..ROUNDS {
        let answered = round % 2 == 0;
        for (passive, active) in PAIRS {
            let metadata = owner.offer(passive, "64,64")?;
            peer.make(active, "64,64")?;
            peer.answers(&format!("soon {active} {active} {active} {metadata}"), "ok")?;
            if answered {
                peer.tell("statistics")?;
            }
            peer.answers(&format!("drop {active}"), "ok")?;
            if answered {
                // It was posted before it was dropped, so its bytes arrive.
                owner.completes(passive)?;
            }
            owner.answers(&format!("drop {passive}"), "ok")?;
        }
    }
    peer.holds_nothing()?;
    peer.answers("access write", "free")?;
    peer.answers("abandoned", "0")?;
    owner.ends_well()?;
    peer.ends_well()
}

/// Without any operation a session sleeps, and over TCP nothing moves that its agent does not attend to.
fn keep_listening(owner: &mut Process) -> Outcome {
    owner.answers("memory other 1 1", "ok")?;
    owner.answers("readable other other", "ok")
}
