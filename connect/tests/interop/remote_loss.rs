//! The memory of Dynamo's Python in pieces, when one of the two stops, dies or goes in the middle.

use std::time::{Duration, Instant};

use super::contents::{filled, patterned};
use super::ours::Ours;
use super::process::Process;
use super::python::{self, Nixl};
use super::remote::{held, holds, is};
use crate::Outcome;

const LARGE: u64 = 64 << 20;
const SECONDS: Duration = Duration::from_secs(20);

/// A part has moved, and what was read ahead is on its way or here.
fn in_the_middle(ours: &mut Ours, verb: &str) -> Outcome<Process> {
    let mut python = python::owner(Nixl::V1_5_1, &format!("{verb} {LARGE}"))?;
    ours.tell(&format!("open r 8 1048576 {}", python.line()?))?;
    ours.tell(&format!("{} r 0 5000000 777777 10000", command(verb)))?;
    Ok(python)
}

fn command(verb: &str) -> &'static str {
    if verb == "readable" { "get" } else { "put" }
}

#[test]
fn a_peer_killed_in_the_middle_is_an_error_that_stays() -> Outcome {
    let mut ours = Ours::start()?;
    let rest = |verb, milliseconds| format!("{} r 5000000 60000000 777777 {milliseconds}", command(verb));
    for (verb, in_flight) in
        [("readable", true), ("writable", true), ("readable", false), ("writable", false)]
    {
        let mut python = in_the_middle(&mut ours, verb)?;
        if in_flight {
            // Every slot is on its way when the peer dies.
            python.stop()?;
            ours.refuses(&rest(verb, 300), "DeadlineExceeded")?;
        }
        python.kill()?;
        let since = Instant::now();
        ours.refuses(&rest(verb, 60_000), "PeerLost")?;
        for again in [rest(verb, 60_000).as_str(), "flush r 60000"] {
            ours.refuses(again, "PeerLost")?;
        }
        ours.refuses("complete r 60000", "EarlierFailure")?;
        assert!(since.elapsed() < SECONDS, "took {:?}", since.elapsed());
        loop {
            // What NIXL failed to post it has for good.
            let left = held(&mut ours)?;
            if left == [0, 0, 0] || (!in_flight && left[2] == 0) {
                break;
            }
            assert!(since.elapsed() < SECONDS, "{left:?} are not given back");
        }
    }
    // The session goes on with others.
    let mut living = python::owner(Nixl::V1_5_1, "readable 64")?;
    ours.tell(&format!("open r 8 1048576 {}", living.line()?))?;
    assert_eq!(ours.tell("get r 0 64 64 10000")?["sha256"], patterned(64));
    ours.tell("complete r 10000")?;
    living.say("wait 60")?;
    assert_eq!(living.json()?["status"], "DONE");
    Ok(())
}

/// NIXL reports nothing, now or later.
#[test]
fn a_stopped_peer_is_noticed_by_the_deadline_and_its_slots_are_kept_until_it_goes_on() -> Outcome {
    let mut ours = Ours::start()?;
    for verb in ["readable", "writable"] {
        let mut python = in_the_middle(&mut ours, verb)?;
        python.stop()?;
        let since = Instant::now();
        let rest = format!("{} r 5000000 60000000 777777", command(verb));
        ours.refuses(&format!("{rest} 300"), "DeadlineExceeded")?;
        let deadlines = if verb == "writable" { 2 } else { 1 };
        if verb == "writable" {
            ours.refuses("flush r 300", "DeadlineExceeded")?;
        }
        assert!(since.elapsed() >= Duration::from_millis(300 * deadlines));
        assert!(since.elapsed() < SECONDS, "took {:?}", since.elapsed());
        let [_, regions, in_flight] = held(&mut ours)?;
        assert!(regions == 1 && in_flight > 0, "{regions} regions, {in_flight} in flight");
        // The staging memory outlives its owner for as long as NIXL has transfers over it.
        ours.refuses("complete r 300", "EarlierFailure")?;
        let [endpoints, regions, in_flight] = held(&mut ours)?;
        assert!(endpoints == 0 && regions == 1 && in_flight > 0, "{endpoints}, {regions}, {in_flight}");
        python.go_on()?;
        while held(&mut ours)? != [0, 0, 0] {
            assert!(since.elapsed() < SECONDS, "what has ended is given back");
        }
        python.say("wait 0.3")?;
        python.fails_with("TimeoutError")?;
    }
    Ok(())
}

#[test]
fn a_wait_is_ended_by_its_abort_handle_at_once_and_for_good() -> Outcome {
    let mut ours = Ours::start()?;
    let python = in_the_middle(&mut ours, "readable")?;
    python.stop()?;
    ours.refuses("abort r", "Closed")?;
    ours.refuses("get r 0 1 1 10000", "Closed")?;
    ours.refuses("complete r 10000", "EarlierFailure").map(drop)
}

#[test]
fn a_peer_that_was_killed_before_cannot_be_opened() -> Outcome {
    let mut ours = Ours::start()?;
    let mut python = python::owner(Nixl::V1_5_1, "readable 64")?;
    let metadata = python.line()?;
    python.kill()?;
    for _ in 0..2 {
        let since = Instant::now();
        if ours.ask(&format!("open r 8 64 {metadata}"))?.get("error").is_none() {
            // NIXL may find it out only when it is asked for bytes.
            ours.refuses("get r 0 1 1 60000", "PeerLost")?;
        }
        assert!(since.elapsed() < SECONDS, "took {:?}", since.elapsed());
    }
    ours.refuses(&format!("open r 8 64 {metadata}"), "PeerLost").map(drop)
}

/// The peer may free the memory, or use it, as soon as it is told.
#[test]
fn a_peer_is_not_told_before_all_that_is_on_its_way_is_over() -> Outcome {
    let mut ours = Ours::start()?;
    let mut python = python::owner(Nixl::V1_5_1, "writable 1000")?;
    ours.tell(&format!("open w 8 64 {}", python.line()?))?;
    ours.tell("put w 0 64 64 10000")?;
    ours.tell("flush w 10000")?;
    python.stop()?;
    ours.tell("put w 0 128 64 10000")?;
    let late = ours.refuses("complete w 300", "DeadlineExceeded")?;
    assert!(late.contains("landing"), "{late}");
    is_told_nothing(&mut python)?;

    let mut python = python::owner(Nixl::V1_5_1, "readable 1000")?;
    ours.tell(&format!("open r 8 64 {}", python.line()?))?;
    ours.tell("get r 0 1 1 10000")?;
    let since = Instant::now();
    while held(&mut ours)?[2] > 0 {
        assert!(since.elapsed() < SECONDS, "what is read ahead comes");
    }
    python.stop()?;
    // All of this is here already, and each slot that it empties is used to read further ahead.
    ours.tell("get r 1 127 127 10000")?;
    assert_eq!(held(&mut ours)?[2], 2);
    let late = ours.refuses("complete r 300", "DeadlineExceeded")?;
    assert!(late.contains("in flight"), "{late}");
    is_told_nothing(&mut python)
}

fn is_told_nothing(python: &mut Process) -> Outcome {
    python.go_on()?;
    python.say("wait 1")?;
    python.fails_with("TimeoutError")?;
    is(python, "INIT")
}

/// NIXL keeps no order among transfers.
#[test]
fn bytes_wait_for_others_on_their_way_to_the_same_place() -> Outcome {
    let mut ours = Ours::start()?;
    let mut python = python::owner(Nixl::V1_5_1, "writable 1000")?;
    ours.tell(&format!("open w 8 64 {}", python.line()?))?;
    ours.tell("put w 0 64 64 10000")?;
    ours.tell("flush w 10000")?;
    python.stop()?;
    ours.tell("put w 0 128 64 10000")?;
    let late = ours.refuses("put w 63 64 64 300", "DeadlineExceeded")?;
    assert!(late.contains("earlier bytes"), "{late}");
    python.go_on()?;
    ours.tell("put w 63 64 64 10000")?;
    ours.tell("flush w 10000")?;
    holds(&mut python, &super::contents::sha256([patterned_then_zeros(128, 1000).as_slice()]))
}

fn patterned_then_zeros(patterned: u64, length: u64) -> Vec<u8> {
    (0..length).map(|place| if place < patterned { super::contents::byte(place) } else { 0 }).collect()
}

#[test]
fn the_end_of_the_session_is_the_end_of_its_memory() -> Outcome {
    let mut ours = Ours::start()?;
    let mut python = python::owner(Nixl::V1_5_1, "readable 64")?;
    ours.tell(&format!("open r 8 64 {}", python.line()?))?;
    ours.tell("end")?;
    ours.refuses("get r 0 1 1 10000", "Closed")?;
    ours.refuses("complete r 10000", "EarlierFailure").map(drop)
}

/// Nor does what lay in a slot that was not full reach it.
#[test]
fn a_peer_is_told_nothing_when_its_memory_is_let_go_in_the_middle() -> Outcome {
    let mut ours = Ours::start()?;
    let mut readable = in_the_middle(&mut ours, "readable")?;
    ours.tell("gone r")?;
    let mut python = python::owner(Nixl::V1_5_1, "writable 100")?;
    ours.tell(&format!("open r 8 64 {}", python.line()?))?;
    ours.tell("put r 0 10 10 10000")?;
    ours.tell("gone r")?;
    for python in [&mut readable, &mut python] {
        python.say("wait 1")?;
        python.fails_with("TimeoutError")?;
        is(python, "INIT")?;
    }
    holds(&mut python, &filled(0, 100))
}

#[test]
fn what_is_killed_on_our_side_tells_the_peer_nothing() -> Outcome {
    let mut ours = Ours::start()?;
    let mut python = in_the_middle(&mut ours, "writable")?;
    ours.kill()?;
    python.say("wait 1")?;
    python.fails_with("TimeoutError").map(drop)
}
