//! Cancellation before an operation is connected, while it is in flight, and after its end.

use crate::Outcome;
use crate::beginning::PAIRS;
use crate::process::Process;

/// More than the buffers of a socket hold.
const LARGE: &str = "16777216";

/// In `nixl_connect` it becomes STOP.
#[test]
fn an_operation_that_is_complete_cannot_be_cancelled_and_stays_complete() -> Outcome {
    let [mut owner, mut peer] = Process::desks()?;
    for (passive, active) in PAIRS {
        let metadata = owner.offer(passive, "64")?;
        peer.begin(active, "64", &metadata)?;
        for (side, operation) in [(&mut owner, passive), (&mut peer, active)] {
            side.completes(operation)?;
            side.refuses(&format!("cancel {operation}"), "Ended Mistake")?;
            side.completes(operation)?;
        }
    }
    owner.ends_well()?;
    peer.ends_well()
}

/// The owner is stopped, so nothing can be over when the cancellation comes.
#[test]
fn a_cancelled_operation_gives_its_memory_back_only_when_nixl_is_done_with_it() -> Outcome {
    for (passive, active) in PAIRS {
        let [mut owner, mut peer] = Process::desks()?;
        // Before there is a connection, and with one.
        for _ in 0..2 {
            let metadata = owner.offer(passive, LARGE)?;
            owner.stop()?;
            peer.begin(active, LARGE, &metadata)?;
            peer.answers(&format!("cancel {active}"), "ok")?;
            peer.answers(&format!("status {active}"), "STOP")?;
            peer.refuses(&format!("wait {active} 30000"), "Cancelled Cancelled")?;
            peer.refuses(&format!("results {active} 1"), "NotComplete Mistake")?;
            peer.refuses(&format!("cancel {active}"), "Ended Mistake")?;
            peer.refuses(&format!("release {active} 50"), "DeadlineExceeded Retryable")?;
            peer.answers(&format!("take {active} {active}"), "kept")?;
            peer.answers("statistics", "endpoints=1 regions=1 in_flight=1 foreign=0")?;
            owner.go_on()?;
            peer.answers(&format!("release {active} 30000"), "ok")?;
            peer.answers(&format!("status {active}"), "STOP")?;
            peer.answers(&format!("take {active} {active}"), "ok")?;
            peer.answers(&format!("access {active}"), "free")?;
            peer.holds_nothing()?;
            // NIXL cannot take a transfer back, and says to the owner what is true: the bytes have moved.
            owner.completes(passive)?;
            owner.answers(&format!("drop {passive}"), "ok")?;
        }
        owner.holds_nothing()?;
        owner.ends_well()?;
        peer.ends_well()?;
    }
    Ok(())
}

#[test]
fn a_passive_operation_that_nobody_knows_of_gives_its_memory_back_when_it_is_cancelled() -> Outcome {
    let mut owner = Process::desk()?;
    for (passive, _) in PAIRS {
        owner.make(passive, "4096,1")?;
        owner.answers(&format!("{passive} {passive} {passive}"), "ok")?;
        owner.answers(&format!("cancel {passive}"), "ok")?;
        owner.refuses(&format!("wait {passive} 30000"), "Cancelled Cancelled")?;
        owner.answers(&format!("take {passive} {passive}"), "ok")?;
        owner.answers(&format!("access {passive}"), "free")?;
    }
    owner.answers("abandoned", "0")?;
    owner.holds_nothing()?;
    owner.ends_well()
}

/// Its peer cannot be told, and reads or writes what was offered: the memory must still be there.
#[test]
fn a_passive_operation_that_was_offered_keeps_its_memory_when_it_is_cancelled() -> Outcome {
    let [mut owner, mut peer] = Process::desks()?;
    for (passive, active) in PAIRS {
        let metadata = owner.offer(passive, LARGE)?;
        owner.answers(&format!("cancel {passive}"), "ok")?;
        owner.answers(&format!("take {passive} {passive}"), "kept")?;
        peer.begin(active, LARGE, &metadata)?;
        peer.completes(active)?;
        owner.answers(&format!("status {passive}"), "STOP")?;
        owner.refuses(&format!("cancel {passive}"), "Ended Mistake")?;
        owner.answers(&format!("take {passive} {passive}"), "kept")?;
        owner.answers(&format!("drop {passive}"), "ok")?;
    }
    // Whatever the peer does from here on, it does to memory that is nobody else's.
    owner.answers("abandoned", &(2 * 16_777_216).to_string())?;
    owner.holds_nothing()?;
    owner.ends_well()?;
    peer.ends_well()
}
