//! An operation keeps its connector: dropping that one first is legal, and does no harm.

use crate::Outcome;
use crate::beginning::PAIRS;
use crate::process::Process;

#[test]
fn operations_outlive_the_callers_connector() -> Outcome {
    let [mut owner, mut peer] = Process::desks()?;
    let metadata = PAIRS.map(|(passive, _)| owner.offer(passive, "1048576,1"));
    owner.answers("leave", "ok")?;
    for ((passive, active), metadata) in PAIRS.into_iter().zip(metadata) {
        peer.begin(active, "1048576,1", &metadata?)?;
        if active == "write" {
            peer.answers("leave", "ok")?;
        }
        peer.completes(active)?;
        owner.completes(passive)?;
        owner.answers(&format!("take {passive} {passive}"), "ok")?;
        owner.answers(&format!("compare {passive} 1"), "equal")?;
    }
    owner.ends_well()?;
    peer.ends_well()
}

#[test]
fn a_connector_with_operations_is_not_closed_under_them() -> Outcome {
    let [mut owner, mut peer] = Process::desks()?;
    let metadata = owner.offer("readable", "64")?;
    owner.refuses("close 5000", "Session Local")?;
    peer.begin("read", "64", &metadata)?;
    peer.completes("read")?;
    owner.completes("readable")?;
    peer.answers("drop read", "ok")?;
    peer.answers("close 5000", "ok")?;
    owner.ends_well()?;
    peer.ends_well()
}

/// The session ends with a transfer in flight; NIXL still writes into the memory, which therefore stays.
#[test]
fn the_last_of_a_connector_can_be_dropped_with_a_transfer_in_flight() -> Outcome {
    for (passive, active) in PAIRS {
        let [mut owner, mut peer] = Process::desks()?;
        let metadata = owner.offer(passive, "16777216")?;
        owner.stop()?;
        peer.begin(active, "16777216", &metadata)?;
        peer.answers("leave", "ok")?;
        peer.answers(&format!("drop {active}"), "ok")?;
        if active == "write" {
            // For ever, as nobody looks any more whether NIXL is done.
            peer.answers("access write", "in flight")?;
        }
        owner.go_on()?;
        peer.ends_well()?;
        owner.ends_well()?;
    }
    Ok(())
}
