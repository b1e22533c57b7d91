//! The memory of Dynamo's Python, on both versions of NIXL, used by us in pieces. Python sees one Read or Write: its memory, with
//! untouched bytes around it, and the end, which comes when we say so and not before.

use super::contents::{filled, patterned};
use super::ours::Ours;
use super::process::Process;
use super::python::{self, Nixl};
use crate::Outcome;

/// Crossed by pieces of any size.
const LIST: &str = "64,1,1048579";
const LISTED: u64 = 64 + 1 + 1_048_579;
const LARGE: u64 = 64 << 20;

/// What Python says of its memory.
pub fn holds(python: &mut Process, sha256: &str) -> Outcome {
    python.say("sum")?;
    let said = python.json()?;
    if said["sha256"] == sha256 && said["whole"] == true {
        return Ok(());
    }
    Err(python.failure(&format!("said {said} instead of {sha256} with whole canaries")))
}

pub fn is(python: &mut Process, status: &str) -> Outcome {
    python.say("status")?;
    let said = python.json()?;
    if said["status"] == status { Ok(()) } else { Err(python.failure(&format!("said {said}, not {status}"))) }
}

/// Python is done, and goes.
fn is_done(mut python: Process, sha256: &str) -> Outcome {
    python.say("wait 60")?;
    let said = python.json()?;
    assert_eq!(said["status"], "DONE", "{said}");
    holds(&mut python, sha256)?;
    python.end_input();
    python.ends_with(0)
}

/// A command that gives the sum over what was read.
fn reads(ours: &mut Ours, command: &str, sha256: &str) -> Outcome {
    let said = ours.tell(command)?;
    if said["sha256"] == sha256 { Ok(()) } else { Err(format!("{command}: {said}, not {sha256}").into()) }
}

pub fn held(ours: &mut Ours) -> Outcome<[u64; 3]> {
    Ok(serde_json::from_value(ours.tell("session")?["holds"].clone())?)
}

fn reads_all_in_pieces(nixl: Nixl) -> Outcome {
    let mut ours = Ours::start()?;
    for (sizes, total, slots, piece) in
        [(LIST, LISTED, "3 1000", 777), ("1", 1, "8 1048576", 5), (LIST, LISTED, "8 1048576", 1 << 20)]
    {
        let mut python = python::owner(nixl, &format!("readable {sizes}"))?;
        let opened = ours.tell(&format!("open r {slots} {}", python.line()?))?;
        assert_eq!(opened["length"], total);
        assert_eq!(
            (opened["kind"].as_str(), &opened["devices"]),
            (Some("READ"), &serde_json::json!(["cpu"]))
        );
        reads(&mut ours, &format!("get r 0 {total} {piece} 10000"), &patterned(total))?;
        is(&mut python, "INIT")?;
        ours.tell("complete r 10000")?;
        is_done(python, &patterned(total))?;
        assert_eq!(held(&mut ours)?, [0, 0, 0], "what was held for it is given back");
    }
    Ok(())
}

#[test]
fn all_of_a_python_readable_is_read_in_pieces() -> Outcome {
    reads_all_in_pieces(Nixl::V1_5_1)
}

#[test]
fn all_of_a_python_readable_on_nixl_1_4_1_is_read_in_pieces() -> Outcome {
    reads_all_in_pieces(Nixl::V1_4_1)
}

fn writes_all_in_pieces(nixl: Nixl) -> Outcome {
    let mut ours = Ours::start()?;
    for (sizes, total, slots, piece) in
        [(LIST, LISTED, "3 1000", 777), ("1", 1, "8 1048576", 5), (LIST, LISTED, "8 1048576", 1 << 20)]
    {
        let mut python = python::owner(nixl, &format!("writable {sizes}"))?;
        let opened = ours.tell(&format!("open w {slots} {}", python.line()?))?;
        assert_eq!((&opened["length"], opened["kind"].as_str()), (&total.into(), Some("WRITE")));
        holds(&mut python, &filled(0, total as usize))?;
        ours.tell(&format!("put w 0 {total} {piece} 10000"))?;
        ours.tell("flush w 10000")?;
        // After a flush the bytes are there, whatever Python has been told.
        holds(&mut python, &patterned(total))?;
        reads(&mut ours, &format!("back w 0 {total} {piece} 10000"), &patterned(total))?;
        is(&mut python, "INIT")?;
        ours.tell("complete w 10000")?;
        is_done(python, &patterned(total))?;
        assert_eq!(held(&mut ours)?, [0, 0, 0], "what was held for it is given back");
    }
    Ok(())
}

#[test]
fn all_of_a_python_writable_is_written_in_pieces_and_read_back() -> Outcome {
    writes_all_in_pieces(Nixl::V1_5_1)
}

#[test]
fn all_of_a_python_writable_on_nixl_1_4_1_is_written_in_pieces_and_read_back() -> Outcome {
    writes_all_in_pieces(Nixl::V1_4_1)
}

#[test]
fn what_is_completed_without_a_flush_has_landed_too() -> Outcome {
    let mut ours = Ours::start()?;
    let mut python = python::owner(Nixl::V1_5_1, &format!("writable {LARGE}"))?;
    ours.tell(&format!("open w 8 1048576 {}", python.line()?))?;
    ours.tell(&format!("put w 0 {LARGE} 1500000 10000"))?;
    ours.tell("complete w 10000")?;
    is_done(python, &patterned(LARGE))
}

#[test]
fn many_megabytes_are_read_in_pieces() -> Outcome {
    let mut ours = Ours::start()?;
    let mut python = python::owner(Nixl::V1_5_1, &format!("readable {LARGE}"))?;
    ours.tell(&format!("open r 8 1048576 {}", python.line()?))?;
    reads(&mut ours, &format!("get r 0 {LARGE} 1500000 10000"), &patterned(LARGE))?;
    ours.tell("complete r 10000")?;
    is_done(python, &patterned(LARGE))
}

/// Not in order: what was read ahead is left, what was read back is old after a write, and of two writes the later counts.
#[test]
fn pieces_in_any_order_are_right() -> Outcome {
    let mut ours = Ours::start()?;
    let mut python = python::owner(Nixl::V1_5_1, "readable 3000000")?;
    ours.tell(&format!("open r 3 65536 {}", python.line()?))?;
    for (offset, length) in
        [(0, 10), (2_999_990, 10), (5, 200_000), (200_005, 100), (1_000_000, 0), (64, 65_537)]
    {
        let expected: Vec<u8> = (offset..offset + length).map(super::contents::byte).collect();
        let expected = super::contents::sha256([expected.as_slice()]);
        reads(&mut ours, &format!("get r {offset} {length} 70000 10000"), &expected)?;
    }
    ours.tell("complete r 10000")?;
    is_done(python, &patterned(3_000_000))?;

    let mut python = python::owner(Nixl::V1_5_1, "writable 3000000")?;
    ours.tell(&format!("open w 8 65536 {}", python.line()?))?;
    for offset in (0..3_000_000).step_by(500_000).rev() {
        for value in 0..5 {
            ours.tell(&format!("fill w {offset} 500000 {value}"))?;
        }
        ours.tell(&format!("put w {offset} 500000 70000 10000"))?;
    }
    reads(&mut ours, "back w 0 1000 1000 10000", &patterned(1000))?;
    // By now this range is here already, as it was.
    ours.tell("fill w 1000 100000 7")?;
    reads(&mut ours, "back w 1000 100000 70000 10000", &filled(7, 100_000))?;
    ours.tell("put w 1000 100000 100000 10000")?;
    ours.tell("complete w 10000")?;
    is_done(python, &patterned(3_000_000))
}

/// One buffer in two offers at once, then memory that Python allocates anew, all on one session.
#[test]
fn offers_of_one_peer_stand_beside_and_follow_one_another() -> Outcome {
    let mut ours = Ours::start()?;
    let mut python = python::peer(Nixl::V1_5_1, "readable --size 100000,1 --operations 2 --repeat 3")?;
    for _ in 0..3 {
        let metadata = [python.line()?, python.line()?];
        ours.tell(&format!("open a 3 1000 {}", metadata[0]))?;
        ours.tell(&format!("open b 8 4096 {}", metadata[1]))?;
        reads(&mut ours, "get a 0 100001 777 10000", &patterned(100_001))?;
        ours.tell("complete a 10000")?;
        assert_eq!(python.json()?["status"], "DONE");
        // The other offer of the same buffer goes on.
        reads(&mut ours, "get b 0 100001 5000 10000", &patterned(100_001))?;
        ours.tell("complete b 10000")?;
        assert_eq!(python.json()?["status"], "DONE");
        assert_eq!(held(&mut ours)?, [0, 0, 0], "what was held for it is given back");
    }
    python.ends_with(0)
}

#[test]
fn wrong_verbs_and_ranges_are_refused_before_anything_moves_and_then_it_cannot_be_completed() -> Outcome {
    let mut ours = Ours::start()?;
    for (verb, command, wrong) in [("readable", "get", ["put", "back"]), ("writable", "put", ["get", "get"])]
    {
        for refused in wrong.map(|wrong| (format!("{wrong} r 0 1 1 10000"), "Kind")).into_iter().chain([
            (format!("{command} r 65 1 1 10000"), "OutOfRange"),
            (format!("{command} r 60 6 6 10000"), "OutOfRange"),
            (format!("{command} r {} 2 2 10000", u64::MAX), "OutOfRange"),
        ]) {
            let mut python = python::owner(Nixl::V1_5_1, &format!("{verb} 64,1"))?;
            let metadata = python.line()?;
            ours.refuses(&format!("open r 0 64 {metadata}"), "Misuse")?;
            ours.tell(&format!("open r 8 64 {metadata}"))?;
            let before = ours.tell("session")?["transfers"].clone();
            ours.refuses(&refused.0, refused.1)?;
            assert_eq!(ours.tell("session")?["transfers"], before, "{}", refused.0);
            ours.refuses("complete r 10000", "EarlierFailure")?;
            python.say("wait 0.3")?;
            python.fails_with("TimeoutError")?;
        }
    }
    Ok(())
}
