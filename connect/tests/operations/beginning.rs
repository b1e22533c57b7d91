//! How operations begin and end well, and what their status is meanwhile.

use crate::Outcome;
use crate::process::Process;

/// A passive kind and the active kind that goes with it.
pub const PAIRS: [(&str, &str); 2] = [("readable", "read"), ("writable", "write")];

#[test]
fn bytes_move_in_both_directions_and_in_lists() -> Outcome {
    let [mut owner, mut peer] = Process::desks()?;
    for sizes in ["64", "64,32,1", "1,1048576,3,70000"] {
        for (passive, active) in PAIRS {
            let metadata = owner.offer(passive, sizes)?;
            owner.answers(&format!("status {passive}"), "INIT")?;
            owner.refuses(&format!("results {passive} 1"), "NotComplete Mistake")?;
            peer.begin(active, sizes, &metadata)?;
            for (side, operation) in [(&mut owner, passive), (&mut peer, active)] {
                side.completes(operation)?;
                side.answers(&format!("take {operation} {operation}"), "ok")?;
                side.answers(&format!("compare {operation} 1"), "equal")?;
                side.answers(&format!("access {operation}"), "free")?;
                side.holds_nothing()?;
            }
        }
    }
    owner.ends_well()?;
    peer.ends_well()
}

/// In `nixl_connect` nothing is posted before somebody asks for the status.
#[test]
fn an_active_operation_begins_at_its_creation() -> Outcome {
    let [mut owner, mut peer] = Process::desks()?;
    for (passive, active) in PAIRS {
        let metadata = owner.offer(passive, "100000,7")?;
        peer.make(active, "100000,7")?;
        // Nobody even waits for its start.
        peer.answers(&format!("soon {active} {active} {active} {metadata}"), "ok")?;
        owner.completes(passive)?;
        // What is over needs nobody's attention, though it is held; its memory is registered until it is dropped.
        for side in [&mut owner, &mut peer] {
            side.comes_to("statistics", "endpoints=0 regions=2 in_flight=0 foreign=0")?;
        }
        peer.answers(&format!("start {active}"), "ok")?;
        peer.answers(&format!("status {active}"), "DONE")?;
        peer.answers(&format!("results {active} 1"), "equal")?;
        peer.answers(&format!("drop {active}"), "ok")?;
        owner.answers(&format!("drop {passive}"), "ok")?;
    }
    owner.holds_nothing()?;
    peer.holds_nothing()?;
    owner.ends_well()?;
    peer.ends_well()
}

/// The metadata is not that of the memory: nothing is begun, and the memory comes back with the error.
#[test]
fn an_operation_that_is_refused_gives_its_memory_back() -> Outcome {
    let [mut owner, mut peer] = Process::desks()?;
    let readable = owner.offer("readable", "64,32")?;
    for (kind, sizes, error) in [
        ("write", "64,32", "Kind Mistake"),
        ("read", "64", "Count Mistake"),
        ("read", "32,64", "Size Mistake"),
    ] {
        peer.make(kind, sizes)?;
        peer.refuses(&format!("{kind} {kind} {kind} {readable}"), error)?;
        peer.answers(&format!("access {kind}"), "free")?;
    }
    peer.make("read", "64,32")?;
    peer.answers("elsewhere read", "ok")?;
    peer.refuses(&format!("read read read {readable}"), "OtherConnector Mistake")?;
    peer.refuses("writable writable read", "OtherConnector Mistake")?;
    owner.make("read", "64,32")?;
    owner.refuses(&format!("read read read {readable}"), "OwnAgent Mistake")?;
    owner.answers("access read", "free")?;
    peer.holds_nothing()?;
    owner.answers("statistics", "endpoints=1 regions=2 in_flight=0 foreign=0")?;
    owner.ends_well()?;
    peer.ends_well()
}

#[test]
fn a_descriptor_that_the_caller_registers_stays_registered_between_operations() -> Outcome {
    let [mut owner, mut peer] = Process::desks()?;
    owner.make("readable", "4096,1")?;
    owner.answers("register readable", "ok")?;
    for _ in 0..2 {
        owner.answers("statistics", "endpoints=0 regions=2 in_flight=0 foreign=0")?;
        owner.answers("readable readable readable", "ok")?;
        let metadata = owner.tell("metadata readable")?;
        peer.begin("read", "4096,1", &metadata)?;
        peer.completes("read")?;
        owner.completes("readable")?;
        owner.answers("drop readable", "ok")?;
    }
    owner.answers("deregister readable", "ok")?;
    owner.holds_nothing()?;
    owner.ends_well()?;
    peer.ends_well()
}
