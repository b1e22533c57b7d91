//! A process that comes back under its old name, on either side.

use super::contents::patterned;
use super::ours::Ours;
use super::python::{self, Nixl};
use crate::Outcome;

const LARGE: u64 = 64 << 20;

// case 20
#[test]
fn a_python_peer_restarted_under_its_name_is_stale_to_old_connectors_and_harms_no_other_peer() -> Outcome {
    let mut ours = Ours::start()?;
    ours.tell("connector knows")?;
    ours.tell("connector noticed")?;
    let mut old = python::peer(Nixl::V1_5_1, "readable --size 64 --name twin --operations 3")?;
    let offers = [old.line()?, old.line()?, old.line()?];
    for (operation, connector, offer) in [("a", "knows", &offers[0]), ("b", "noticed", &offers[1])] {
        ours.tell(&format!("read {operation} {connector} - {offer}"))?;
        ours.is_done(operation, &patterned(64))?;
    }
    // Another peer's operations are under way all the time: they cannot end while that peer stands still.
    let mut other = python::peer(Nixl::V1_5_1, &format!("writable --size {LARGE} --operations 2"))?;
    let others = [("x", "knows", other.line()?), ("y", "noticed", other.line()?)];
    other.stop()?;
    for (operation, connector, offer) in &others {
        ours.tell(&format!("write {operation} {connector} - {offer}"))?;
    }

    old.kill()?;
    let lost = ours.loses("c", &format!("read c noticed - {}", offers[2]))?;
    let mut new = python::peer(Nixl::V1_5_1, "readable --size 64 --name twin")?;
    let offer = new.line()?;
    let refusal = ours.refuses(&format!("read d knows - {offer}"), "StalePeer")?;
    assert!(refusal.contains("another process has taken its name"), "{refusal}");
    // What was lost stays lost, for the reason that was noticed then.
    let refusal = ours.refuses(&format!("read d noticed - {offer}"), "StalePeer")?;
    assert_eq!(reason(&refusal), reason(&lost));

    for (operation, ..) in &others {
        assert_eq!(ours.status(operation)?, "PROC");
    }
    other.go_on()?;
    for (operation, ..) in &others {
        ours.is_done(operation, &patterned(LARGE))?;
        let said = other.json()?;
        assert_eq!([&said["status"], &said["sha256"]], ["DONE", &patterned(LARGE)], "{said}");
    }
    other.ends_with(0)?;
    ours.tell("connector fresh")?;
    ours.tell(&format!("read e fresh - {offer}"))?;
    ours.is_done("e", &patterned(64))?;
    new.is_done(&patterned(64))?;
    new.ends_with(0)
}

/// What was noticed, without what follows from it.
fn reason(message: &str) -> &str {
    let found = ["is lost: ", "is stale: "].into_iter().find_map(|verdict| message.split_once(verdict));
    found.map_or(message, |(_, reason)| reason)
}

// case 20, the other way round
#[test]
fn our_restart_under_the_same_name_is_a_new_agent_to_a_python_peer() -> Outcome {
    let mut python = python::peer(Nixl::V1_5_1, "read --repeat 2")?;
    let mut agents = Vec::new();
    for _ in 0..2 {
        let mut ours = Ours::start()?;
        let agent = ours.tell("connector twin")?["agent"].as_str().unwrap_or_default().to_owned();
        assert!(agent.starts_with("twin-") && !agents.contains(&agent), "{agent} after {agents:?}");
        agents.push(agent);
        python.say(&ours.offer("readable p twin 64")?)?;
        python.is_done(&patterned(64))?;
        ours.is_done("p", &patterned(64))?;
        ours.kill()?;
    }
    python.ends_with(0)
}
