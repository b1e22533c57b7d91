//! What leaves us as a notification: Dynamo's Python breaks for good when one is not UTF-8.

use std::collections::BTreeSet;

use nixl_connect::RdmaMetadata;

use super::contents::patterned;
use super::ours::Ours;
use super::python::{self, Nixl};
use crate::Outcome;

const ROUNDS: usize = 3;

// case 18
#[test]
fn every_notification_that_leaves_us_is_a_key_even_a_sign_of_life() -> Outcome {
    let mut ours = Ours::start()?;
    let agent = ours.tell("connector c")?["agent"].as_str().ok_or("no agent")?.to_owned();
    let mut keys = BTreeSet::new();
    let mut key_of = |offer: &str| -> Outcome<String> {
        let key = RdmaMetadata::parse(offer)?.notification_key().to_owned();
        keys.insert(key.clone());
        Ok(key)
    };
    let mut python =
        python::peer(Nixl::V1_5_1, &format!("writable --size 64,32 --repeat {ROUNDS} --notifications"))?;
    let mut offer = python.line()?;
    // Ours waits for that agent too, and asks it for signs of life while nothing else happens.
    let watching = key_of(&ours.offer("readable watching c 64")?)?;
    ours.tell(&format!("expect watching {offer}"))?;
    ours.refuses("wait watching 2500", "DeadlineExceeded")?;
    for round in 0..ROUNDS {
        key_of(&offer)?;
        ours.tell(&format!("write a{round} c - {offer}"))?;
        ours.is_done(&format!("a{round}"), &patterned(96))?;
        python.is_done(&patterned(96))?;
        if round + 1 < ROUNDS {
            offer = python.line()?;
        }
    }
    let said = python.json()?;
    let seen = said["notifications"].as_object().ok_or_else(|| python.failure(&format!("said {said}")))?;
    assert_eq!(seen.keys().collect::<Vec<_>>(), [&agent]);
    let seen: Vec<String> = serde_json::from_value(seen[&agent].clone())?;
    let seen: Vec<String> = seen.iter().map(|hex| text(hex)).collect::<Outcome<_>>()?;
    let distinct: BTreeSet<String> = seen.iter().cloned().collect();
    assert_eq!(distinct, keys);
    let signs = seen.iter().filter(|key| **key == watching).count();
    assert!(signs >= 1 && seen.len() - signs == ROUNDS, "{seen:?}");
    // The agent that was expected is gone now.
    python.ends_with(0)?;
    ours.refuses("wait watching 10000", "PeerLost")?;
    Ok(())
}

/// The bytes as text; they must be UTF-8.
fn text(hex: &str) -> Outcome<String> {
    let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16));
    Ok(String::from_utf8(bytes.collect::<Result<_, _>>()?)?)
}
