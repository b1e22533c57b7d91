//! What the example `peer` promises on its command line, ours with ours: the lines, the names of failures, the exit codes.

use super::contents::{filled, patterned};
use super::ours;
use super::process::Process;
use super::wire::golden;
use crate::Outcome;

/// UCX talks at this level, and it must not do so on standard output.
const TALKATIVE: [(&str, &str); 1] = [("UCX_LOG_LEVEL", "info")];

#[test]
fn both_ends_say_done_with_the_sum_over_their_memory_and_nothing_else() -> Outcome {
    let rows = [
        ("readable --size 64,32,1 --hex", "read --fill 9", patterned(97)),
        ("readable --size 64 --fill 7", "read --size 64", filled(7, 64)),
        ("writable --size 70000,3 --fill 9", "write --fill 255", filled(255, 70_003)),
    ];
    for (passive, active, sum) in rows {
        let mut passive = ours::peer_with(passive, &TALKATIVE)?;
        let mut active = ours::peer_with(active, &TALKATIVE)?;
        active.say(&passive.line()?)?;
        let done = format!(r#"{{"status":"DONE","sha256":"{sum}"}}"#);
        assert_eq!([active.line()?, passive.line()?], [done.as_str(), &done]);
        active.ends_with(0)?;
        passive.ends_with(0)?;
    }
    Ok(())
}

/// Each row: the arguments, what stands on standard input, the error.
#[test]
fn a_failure_is_one_line_with_a_stable_name_and_exit_code_1() -> Outcome {
    let one = golden("read-one-b64")?;
    let list = golden("read-list-b64")?;
    let damaged = one.replacen("b64:eJ", "b64:!!", 1);
    let rows = [
        ("", "", "Arguments"),
        ("fly --size 1", "", "Arguments"),
        ("readable", "", "Arguments"),
        ("readable --size 1,,2", "", "Arguments"),
        ("readable --size 1 --fill 256", "", "Arguments"),
        ("readable --size 1 --timeout never", "", "Arguments"),
        ("read --hex", "", "Arguments"),
        ("--help", "", "Arguments"),
        ("readable --size 9223372036854775807", "", "Memory"),
        ("read", "", "Input"),
        ("read", "{\"descriptors\":[]\n", "Json"),
        ("read", &damaged, "Base64"),
        ("write", &one, "Kind"),
        ("read --size 64,32,2", &list, "Size"),
        ("read --size 97", &list, "Count"),
    ];
    for (arguments, input, error) in rows {
        let mut peer = ours::peer(arguments)?;
        if !input.is_empty() {
            peer.say(input)?;
        }
        peer.end_input();
        fails(peer, error).map_err(|fault| format!("{arguments:?}: {fault}"))?;
    }
    Ok(())
}

#[test]
fn without_a_peer_each_side_ends_at_its_deadline() -> Outcome {
    // case 17
    for passive in ["readable --size 64 --timeout 0.2", "writable --size 64 --timeout 0.2"] {
        let mut peer = ours::peer(passive)?;
        let offer = peer.line()?;
        fails(peer, "DeadlineExceeded")?;
        // The offer outlives its peer, and is worth nothing then.
        let active = if passive.starts_with("readable") { "read" } else { "write" };
        let mut late = ours::peer(active)?;
        late.say(&offer)?;
        // Which of the two depends on when the kernel refuses the connection.
        fails_with_one_of(late, &["StalePeer", "PeerLost"])?;
    }
    // The input stays open, and empty.
    fails(ours::peer("read --timeout 0.2")?, "Input")
}

#[test]
fn a_nixl_that_is_not_there_is_a_failure_of_its_own_name() -> Outcome {
    fails(ours::peer_with("readable --size 1", &[("NIXL_TRANSFER_NIXL_LIBRARY", "/nowhere")])?, "Library")
}

fn fails(peer: Process, error: &str) -> Outcome {
    fails_with_one_of(peer, &[error])
}

fn fails_with_one_of(mut peer: Process, errors: &[&str]) -> Outcome {
    let line = peer.json()?;
    let fields = line.as_object().ok_or("no object")?;
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["error", "message"], "{line}");
    assert!(line["error"].as_str().is_some_and(|error| errors.contains(&error)), "{line}, not {errors:?}");
    assert!(line["message"].as_str().is_some_and(|message| !message.trim().is_empty()), "{line}");
    peer.ends_with(1)
}
