//! Peers that die, and peers that never come.

use super::contents::patterned;
use super::ours::Ours;
use super::python::{self, Nixl};
use crate::Outcome;

const PAIRS: [(&str, &str); 2] = [("readable", "read"), ("writable", "write")];
/// More than the buffers of a connection hold: a transfer of so much cannot end while its peer stands still.
const LARGE: u64 = 64 << 20;

// case 16
#[test]
fn a_python_peer_killed_before_we_begin_is_an_error_and_the_connector_serves_others() -> Outcome {
    let mut ours = Ours::start()?;
    ours.tell("connector c")?;
    for (passive, active) in PAIRS {
        let mut python = python::peer(Nixl::V1_5_1, &format!("{passive} --size 64"))?;
        let offer = python.line()?;
        python.kill()?;
        ours.loses(active, &format!("{active} {active} c - {offer}"))?;
        // The same metadata is refused at once from now on.
        ours.refuses(&format!("{active} again c - {offer}"), "StalePeer")?;
    }
    serves_others(&mut ours)
}

// case 16
#[test]
fn a_python_peer_killed_in_the_middle_is_an_error_and_the_connector_serves_others() -> Outcome {
    let mut ours = Ours::start()?;
    ours.tell("connector c")?;
    for (passive, active) in PAIRS {
        let mut python = python::peer(Nixl::V1_5_1, &format!("{passive} --size {LARGE} --operations 2"))?;
        let offers = [python.line()?, python.line()?];
        // The first one sets up the connection, so that the second one moves bytes when it stops.
        ours.tell(&format!("{active} first c - {}", offers[0]))?;
        ours.is_done("first", &patterned(LARGE))?;
        python.stop()?;
        ours.tell(&format!("{active} second c - {}", offers[1]))?;
        ours.refuses("wait second 300", "DeadlineExceeded")?;
        assert_eq!(ours.status("second")?, "PROC");
        python.kill()?;
        let error = ours.refuses("wait second 10000", "PeerLost")?;
        assert!(error.contains("is lost"), "{error}");
        assert_eq!(ours.status("second")?, "ERR");
    }
    serves_others(&mut ours)
}

fn serves_others(ours: &mut Ours) -> Outcome {
    let mut python = python::peer(Nixl::V1_5_1, "readable --size 64")?;
    ours.tell(&format!("read living c - {}", python.line()?))?;
    ours.is_done("living", &patterned(64))?;
    python.is_done(&patterned(64))?;
    python.ends_with(0)
}

// case 16, the other way round
#[test]
fn python_is_told_when_we_are_killed_in_the_middle() -> Outcome {
    let mut ours = Ours::start()?;
    ours.tell("connector c")?;
    let mut python = python::peer(Nixl::V1_5_1, "read --repeat 2 --announce")?;
    python.say(&ours.offer(&format!("readable first c {LARGE}"))?)?;
    assert!(python.json()?["state"].is_string());
    python.is_done(&patterned(LARGE))?;
    let offer = ours.offer(&format!("readable second c {LARGE}"))?;
    ours.stop()?;
    python.say(&offer)?;
    // The transfer is posted, and cannot end any more.
    assert_eq!(python.json()?["state"], "INIT");
    ours.kill()?;
    let said = python.json()?;
    assert_eq!(said["error"], "nixlRemoteDisconnectError", "{said}");
    python.ends_with(1)
}

// case 17
#[test]
fn an_offer_that_nobody_took_before_the_deadline_can_still_be_taken() -> Outcome {
    let mut ours = Ours::start()?;
    ours.tell("connector c")?;
    for (passive, active) in PAIRS {
        let offer = ours.offer(&format!("{passive} p c 64"))?;
        ours.refuses("wait p 200", "DeadlineExceeded")?;
        assert_eq!(ours.status("p")?, "INIT");
        let mut python = python::peer(Nixl::V1_5_1, active)?;
        python.say(&offer)?;
        python.is_done(&patterned(64))?;
        ours.is_done("p", &patterned(64))?;
        python.ends_with(0)?;
    }
    Ok(())
}
