//! Suite `resume`, D9: a file whose receiving side dies at 70 %, and what is sent again. Counted at the sender's network
//! device, alike for all: what went out, less what goes out when nobody dies.

mod rsync;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use devcluster::ClusterDir;

use super::contest::{Contest, Contestant};
use super::data::{ensure_memory, remove, touch_memory};
use super::files::Volumes;
use super::files::peers::RSYNC;
use super::goal::no_more_than;
use super::host::Host;
use super::installed::{is_installed, missing_note};
use super::jobs::Jobs;
use super::namespaces::{DEVICE, Namespaces, Speed};
use super::row::Unit;
use super::suite::{Place, Results};
use crate::demo::{compare, dataset};
use rsync::Rsync;

const NAME: &str = "large";
const PERCENT: u64 = 70;
/// Of less than the goal allows nothing could be said.
const SMALLEST: u64 = 256 << 20;
/// In MiB.
const GOAL: f64 = 64.0;
/// Longer than a copy takes, with a deadline of an agent in it.
const WITHIN: Duration = Duration::from_secs(120);

pub fn run(place: &Place) -> Result<Results> {
    let bytes = place.sizes.large.max(SMALLEST);
    ensure_memory(4 * bytes + (1 << 30))?;
    let data = ClusterDir::create(&place.directory.join("nixl-transfer-bench"), "resume")?;
    let volumes = Volumes { a: data.path().join("a"), b: data.path().join("b") };
    fs::create_dir_all(&volumes.b)?;
    dataset::write_files(&volumes.a, [(NAME.to_owned(), bytes), ("warm".to_owned(), 1 << 20)])?;
    touch_memory(&volumes.b, 2 * bytes)?;
    let spaces = Namespaces::start(2, Speed::Gigabit)?;
    let jobs = RefCell::new(Jobs::start_in(data.path(), &spaces)?);
    jobs.borrow_mut().ask("move warm warm")?;
    let said = RefCell::new(BTreeSet::new());
    // What leaves the sender while `copy` makes the copy, which is then compared and removed.
    let sent = |copy: &dyn Fn() -> Result<()>| -> Result<f64> {
        let before = spaces.nodes()[0].sent_by(DEVICE)?;
        copy()?;
        let sent = spaces.nodes()[0].sent_by(DEVICE)? - before;
        ensure!(sent >= bytes, "the copy went another way: {sent} bytes of {bytes} by {DEVICE}");
        compare::same(&volumes.a.join(NAME), &volumes.b.join(NAME))?;
        remove(&volumes.b.join(NAME))?;
        Ok(sent as f64 / f64::from(1 << 20))
    };
    let sent = &sent;
    let at = bytes / 100 * PERCENT;
    let unharmed = || jobs.borrow_mut().ask(&format!("move {NAME} {NAME}")).map(drop);
    let killed = || {
        let (_, words) = jobs.borrow_mut().ask_more(&format!("die {at} {NAME} {NAME}"))?;
        said.borrow_mut().insert(format!("D9, ours: {}.", words.join(" ")));
        Ok(())
    };
    let whole = sent(&unharmed)?;
    let rsync = is_installed(RSYNC)
        .then(|| Rsync::start(Host::Node(&spaces, 0), Host::Node(&spaces, 1), &volumes, NAME))
        .transpose()?;
    let mut peers = Vec::new();
    if let Some(rsync) = &rsync {
        let whole = sent(&|| rsync.copy())?;
        let killed = move || {
            rsync.die(at, WITHIN)?;
            rsync.copy()
        };
        peers.push(Contestant::rival("rsync --partial", move || Ok((sent(&killed)? - whole).max(0.0))));
    }
    let contest = Contest {
        id: "D9",
        case: format!("{} MiB, receiver killed at {PERCENT} %: sent again", bytes >> 20),
        unit: Unit::Mebibytes,
        ours: Box::new(move || Ok((sent(&killed)? - whole).max(0.0))),
        peers,
        missing: if is_installed(RSYNC) { Vec::new() } else { vec![RSYNC] },
        goal: vec![no_more_than(GOAL)],
    };
    let measured = vec![contest.run(place.rounds)?];
    Ok(Results { measured, notes: said.take().into_iter().collect() })
}

pub fn notes() -> Vec<String> {
    let mut notes: Vec<String> = (!is_installed(RSYNC)).then(|| missing_note(RSYNC)).into_iter().collect();
    notes.push(
        "D9: bytes are counted at the sender's device, less those of a copy that nobody disturbs: agents count what they \
         have sent once a second, so their counters miss the last moment of an attempt that ends badly. Of ours the worker \
         that receives is killed; of rsync the sending client, for a receiver that is killed leaves nothing that rsync \
         would use."
            .to_owned(),
    );
    notes
}
