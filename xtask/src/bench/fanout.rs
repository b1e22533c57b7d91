//! Suite `fanout`, D6 and D7: one file to many nodes, each with a link of its own of 1 Gbit/s each way. A chain of ours
//! beside ours directly, a star of rsync and a chain of plain sockets; and one receiver that dies half way.

mod rivals;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use devcluster::ClusterDir;

use super::contest::{Contest, Contestant};
use super::data::{ensure_memory, remove, touch_memory};
use super::goal::at_most;
use super::installed::{is_installed, missing_note};
use super::jobs::{Jobs, node_name};
use super::namespaces::{Namespaces, Speed};
use super::row::{Measured, Unit};
use super::suite::{Place, Results};
use crate::demo::{compare, dataset};
use rivals::{RSYNC, Rivals};

const ONE: &str = "to one";
const UNHARMED: &str = "without a death";
const NAME: &str = "large";
/// Most receivers.
const MOST: usize = 8;
/// How many of them, and what the goal allows over one.
const COUNTS: [(usize, f64); 2] = [(4, 1.06), (MOST, 1.12)];
const WITH_A_DEATH: usize = 4;
/// The second receiver.
const DIES: usize = 2;
const SURVIVORS_GOAL: f64 = 1.5;
/// The size of a chunk, unless a job says otherwise.
const CHUNK: u64 = 1 << 20;

pub fn run(place: &Place) -> Result<Results> {
    let bytes = place.sizes.fan;
    ensure_memory((MOST as u64 + 2) * bytes + (2 << 30))?;
    let data = ClusterDir::create(&place.directory.join("nixl-transfer-bench"), "fanout")?;
    let volumes: Vec<PathBuf> = (0..=MOST).map(|at| data.path().join(node_name(at))).collect();
    for volume in &volumes {
        fs::create_dir_all(volume)?;
    }
    dataset::write_files(&volumes[0], [(NAME.to_owned(), bytes), ("warm".to_owned(), 1 << 20)])?;
    touch_memory(&volumes[0], MOST as u64 * bytes)?;
    let spaces = Namespaces::start(MOST + 1, Speed::Gigabit)?;
    let jobs = Jobs::start_in(data.path(), &spaces)?;
    let rivals = Rivals::start(&spaces, &volumes)?;
    let arena = Arena { bytes, volumes: &volumes, jobs: RefCell::new(jobs), done: RefCell::default() };
    // The first job of a worker is not like the others.
    arena.jobs.borrow_mut().ask(&format!("fan Direct {MOST} warm warm"))?;
    let mut measured = Vec::new();
    for (count, goal) in COUNTS {
        measured.push(arena.fan(place.rounds, count, goal, &rivals)?);
    }
    measured.push(arena.fan_with_a_death(place.rounds)?);
    Ok(Results { measured, notes: arena.done.take().into_iter().collect() })
}

pub fn notes() -> Vec<String> {
    let mut notes: Vec<String> = (!is_installed(RSYNC)).then(|| missing_note(RSYNC)).into_iter().collect();
    notes.push(
        "socket chain: each receiver stores a chunk of 1 MiB and sends it on while the next comes, eight between; it checks \
         nothing. rsync star: one rsync for each receiver, all at once. Nodes are as in D3."
            .to_owned(),
    );
    notes
}

struct Arena<'a> {
    bytes: u64,
    volumes: &'a [PathBuf],
    jobs: RefCell<Jobs>,
    /// How the operator had it done, whatever was asked for.
    done: RefCell<BTreeSet<String>>,
}

impl Arena<'_> {
    fn fan(&self, rounds: usize, count: usize, goal: f64, rivals: &Rivals) -> Result<Measured> {
        let mut peers = vec![
            Contestant::reference(ONE, || self.ours("Chain", 1)),
            Contestant::reference("ours directly", move || self.ours("Direct", count)),
        ];
        if is_installed(RSYNC) {
            peers.push(Contestant::rival("rsync star", move || {
                self.checked(1..=count, rivals.star(NAME, count)?)
            }));
        }
        peers.push(Contestant::rival("socket chain", move || {
            self.checked(1..=count, rivals.chain(NAME, count)?)
        }));
        let chunks = (self.bytes / CHUNK) as f64;
        let contest = Contest {
            id: "D6",
            case: format!(
                "{} MiB to {count} nodes, links of 1 Gbit/s; a perfect chain takes {:.3} × as long as to one",
                self.bytes >> 20,
                (chunks + count as f64 - 1.0) / chunks
            ),
            unit: Unit::Milliseconds,
            ours: Box::new(move || self.ours("Chain", count)),
            peers,
            missing: if is_installed(RSYNC) { Vec::new() } else { vec![RSYNC] },
            goal: vec![at_most(goal, ONE)],
        };
        contest.run(rounds)
    }

    fn fan_with_a_death(&self, rounds: usize) -> Result<Measured> {
        let half = self.bytes / 2;
        let contest = Contest {
            id: "D7",
            case: format!(
                "{} MiB to {WITH_A_DEATH} nodes, the agent of the second killed half way: until the others have all",
                self.bytes >> 20
            ),
            unit: Unit::Milliseconds,
            ours: Box::new(move || {
                let line = format!("fan-with-a-death Chain {WITH_A_DEATH} {half} {NAME} {NAME}");
                let took = self.jobs.borrow_mut().ask(&line)?;
                // It was over for the second one, unless that has been given its copy after all.
                let second = self.volumes[DIES].join(NAME);
                if second.exists() {
                    remove(&second)?;
                }
                self.checked((1..=WITH_A_DEATH).filter(|at| *at != DIES), took)
            }),
            peers: vec![Contestant::reference(UNHARMED, || self.ours("Chain", WITH_A_DEATH))],
            missing: Vec::new(),
            goal: vec![at_most(SURVIVORS_GOAL, UNHARMED)],
        };
        contest.run(rounds)
    }

    /// From apply to Complete.
    fn ours(&self, how: &str, count: usize) -> Result<f64> {
        let (took, done) = self.jobs.borrow_mut().ask_more(&format!("fan {how} {count} {NAME} {NAME}"))?;
        if count > 1 {
            let note = format!("D6, {count} receivers, asked for fanOut {how}: done {}.", done.join(" "));
            self.done.borrow_mut().insert(note);
        }
        self.checked(1..=count, took)
    }

    /// Milliseconds, when all these receivers have the file's bytes; the copies are removed.
    fn checked(&self, receivers: impl IntoIterator<Item = usize>, took: Duration) -> Result<f64> {
        let source = self.volumes[0].join(NAME);
        for at in receivers {
            let copy = self.volumes[at].join(NAME);
            compare::same(&source, &copy)?;
            remove(&copy)?;
        }
        Ok(took.as_secs_f64() * 1e3)
    }
}
