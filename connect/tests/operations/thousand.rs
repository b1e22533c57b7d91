//! A thousand operations in a row on one connector, of all four kinds and in both directions, without growth.

use crate::Outcome;
use crate::process::Process;

const OPERATIONS: usize = 1000;
/// Kinds of a pair, and which of the two processes is the passive side.
const TURNS: [(&str, &str, usize); 4] =
    [("readable", "read", 0), ("writable", "write", 0), ("readable", "read", 1), ("writable", "write", 1)];
/// By then every buffer that is kept has its size.
const WARM: usize = 300;
/// KiB that 700 further operations may add. One leaked page for each would be 2,800.
const GROWTH: usize = 1024;
/// Ranges of a peer that a session remembers, with room for those of one operation.
const REMEMBERED: usize = 1024 + 7;
/// Each time that a session forgets what it knows of its peer, UCX leaves a socket open at each end; that is after some
/// 150 operations of seven ranges each way.
const SOCKETS: usize = 4;

#[test]
fn a_thousand_operations_in_a_row_leave_nothing_behind() -> Outcome {
    let mut sides = [Process::start("series", "tcp")?, Process::start("series", "tcp")?];
    let mut warm = Vec::new();
    for number in 0..OPERATIONS {
        let (passive, active, at) = TURNS[number % TURNS.len()];
        let metadata = sides[at].tell(&format!("offer {passive} {number}"))?;
        sides[1 - at].answers(&format!("move {active} {number} {metadata}"), "ok")?;
        sides[at].answers("settle", "ok")?;
        if number + 1 == WARM {
            warm = vec![weigh(&mut sides[0])?, weigh(&mut sides[1])?];
        }
    }
    for (mut side, (memory, files)) in sides.into_iter().zip(warm) {
        let (memory_now, files_now) = weigh(&mut side)?;
        assert!(memory_now <= memory + GROWTH, "{memory_now} KiB, {memory} KiB after {WARM} operations");
        assert!(files_now <= files + SOCKETS, "{files_now} open files, {files} after {WARM} operations");
        side.ends_well()?;
    }
    Ok(())
}

/// KiB of memory and open files. The session must hold nothing else of the operations, and not much of its peer.
fn weigh(side: &mut Process) -> Outcome<(usize, usize)> {
    let said = side.tell("weigh")?;
    let numbers: Vec<usize> = said.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [held, foreign, remembered, memory, files] = numbers[..] else { return Err(said.into()) };
    assert_eq!(held, 0, "endpoints, regions and transfers in flight");
    assert_eq!(foreign, 0, "notifications that were nobody's");
    assert!(remembered <= REMEMBERED, "{remembered} ranges of the peer");
    Ok((memory, files))
}
