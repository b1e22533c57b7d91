//! Several operations on one agent, and several consumers of the same memory.

use serde_json::json;

use super::contents::patterned;
use super::ours::Ours;
use super::process::Process;
use super::python::{self, Nixl};
use crate::Outcome;

const MIB: u64 = 1 << 20;

fn is_released(python: &mut Process) -> Outcome {
    let said = python.json()?;
    if said["state"] == "released" { Ok(()) } else { Err(python.failure(&format!("said {said}"))) }
}

// case 14
#[test]
fn pythons_second_operation_goes_on_when_its_first_was_released() -> Outcome {
    let mut ours = Ours::start()?;
    ours.tell("connector c")?;
    for (passive, active) in [("readable", "read"), ("writable", "write")] {
        let arguments = format!("{passive} --size 1048576 --operations 2 --release-first");
        let mut python = python::peer(Nixl::V1_5_1, &arguments)?;
        let offers = [python.line()?, python.line()?];
        // The second one first: Python must not mix them up.
        for (number, offer) in offers.iter().enumerate().rev() {
            ours.tell(&format!("{active} a{number} c - {offer}"))?;
            ours.is_done(&format!("a{number}"), &patterned(MIB))?;
            let said = python.json()?;
            let done = json!({"status": "DONE", "sha256": patterned(MIB), "operation": number});
            assert_eq!(said, done);
            if number == 1 {
                is_released(&mut python)?;
                ours.tell("drop a1")?;
            }
        }
        python.ends_with(0)?;
    }
    Ok(())
}

// case 14
#[test]
fn our_second_operation_goes_on_when_our_first_was_released() -> Outcome {
    let mut ours = Ours::start()?;
    ours.tell("connector c")?;
    for (passive, active) in [("readable", "read"), ("writable", "write")] {
        let offers = [0, 1].map(|number| ours.offer(&format!("{passive} p{number} c 1048576")));
        let mut python = python::peer(Nixl::V1_5_1, &format!("{active} --repeat 2"))?;
        for (number, offer) in offers.into_iter().enumerate().rev() {
            python.say(&offer?)?;
            python.is_done(&patterned(MIB))?;
            ours.is_done(&format!("p{number}"), &patterned(MIB))?;
            if number == 1 {
                assert_eq!(ours.status("p0")?, "INIT");
            }
            ours.tell(&format!("drop p{number}"))?;
        }
        python.ends_with(0)?;
    }
    let statistics = ours.tell("statistics c")?;
    assert_eq!([&statistics["endpoints"], &statistics["abandoned"]], [0, 0], "{statistics}");
    Ok(())
}

// case 15, as it is meant: one operation for each receiver
#[test]
fn four_python_readers_of_one_region_all_get_it_although_each_operation_is_dropped_at_its_end() -> Outcome {
    let mut ours = Ours::start()?;
    ours.tell("connector c")?;
    let mut offers = vec![ours.offer("readable p0 c 16777216")?];
    for number in 1..4 {
        offers.push(ours.offer(&format!("share p{number} c p0"))?);
    }
    // Two on one agent and two on another, all at once.
    let mut readers = [
        python::peer(Nixl::V1_5_1, "read --operations 2 --pause")?,
        python::peer(Nixl::V1_4_1, "read --operations 2 --pause")?,
    ];
    for reader in &mut readers {
        assert_eq!(reader.json()?["state"], "ready");
    }
    for (number, offer) in offers.iter().enumerate() {
        readers[number % 2].say(offer)?;
    }
    let expected = patterned(16 * MIB);
    for number in 0..4 {
        ours.is_done(&format!("p{number}"), &expected)?;
        ours.tell(&format!("drop p{number}"))?;
    }
    for mut reader in readers {
        reader.is_done(&expected)?;
        reader.is_done(&expected)?;
        reader.ends_with(0)?;
    }
    Ok(())
}

// case 15, against the rule: one operation, two receivers
#[test]
fn a_second_reader_of_one_metadata_disturbs_nobody_while_the_memory_is_kept() -> Outcome {
    let mut ours = Ours::start()?;
    ours.tell("connector c")?;
    let offer = ours.offer("readable p c 1048576")?;
    // A connector without open operations sleeps, and over TCP a reader gets nothing from it.
    ours.offer("readable other c 1")?;
    for nixl in [Nixl::V1_5_1, Nixl::V1_4_1] {
        let mut python = python::peer(nixl, "read")?;
        python.say(&offer)?;
        python.is_done(&patterned(MIB))?;
        python.ends_with(0)?;
        // The owner is told by the first one.
        ours.is_done("p", &patterned(MIB))?;
    }
    // The other way round: two of our agents, one operation of Python, which has another one to wait for.
    let mut python = python::peer(Nixl::V1_5_1, "readable --size 1048576 --operations 2")?;
    let offers = [python.line()?, python.line()?];
    ours.tell("connector d")?;
    for (operation, connector, offer) in
        [("a", "c", &offers[0]), ("b", "d", &offers[0]), ("e", "c", &offers[1])]
    {
        ours.tell(&format!("read {operation} {connector} - {offer}"))?;
        ours.is_done(operation, &patterned(MIB))?;
    }
    python.is_done(&patterned(MIB))?;
    python.is_done(&patterned(MIB))?;
    python.ends_with(0)?;
    // The second readers' notifications are nobody's, and stay nowhere.
    for operation in ["p", "a", "b", "e", "other"] {
        ours.tell(&format!("drop {operation}"))?;
    }
    let statistics = ours.tell("statistics c")?;
    // The one byte that nobody came for.
    assert_eq!([&statistics["endpoints"], &statistics["abandoned"]], [0, 1], "{statistics}");
    Ok(())
}
