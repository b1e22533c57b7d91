//! Suite `latency`, D8: from apply to Complete of a 1 MiB job, one after the other, workers warm. Beside it the floor (the
//! same writes and watches, and nothing done for them) and two NIXL agents that are started for one transfer.

use std::cell::RefCell;
use std::fs;
use std::time::Duration;

use anyhow::Result;
use devcluster::ClusterDir;

use super::contest::{Contest, Contestant};
use super::goal::{Against, Bound, Clause, at_least};
use super::jobs::Jobs;
use super::program::{example, timed};
use super::row::{Measured, Unit};
use super::statistics::median;
use super::suite::Place;
use crate::demo::{compare, dataset};

const FLOOR: &str = "floor";
const AGENTS: &str = "NIXL agents per job";
/// What the goal allows over the floor.
const MORE: f64 = 120.0;

pub fn run(place: &Place) -> Result<Vec<Measured>> {
    let data = ClusterDir::create(&place.directory.join("nixl-transfer-bench"), "latency")?;
    let (a, b) = (data.path().join("a"), data.path().join("b"));
    fs::create_dir_all(&b)?;
    dataset::write_files(&a, [("warm".to_owned(), 1 << 20)])?;
    let jobs = RefCell::new(Jobs::start(data.path())?);
    // The first of each kind is not like the others.
    jobs.borrow_mut().ask("move warm warm")?;
    jobs.borrow_mut().ask("floor")?;
    let many = |one: &dyn Fn() -> Result<Duration>, count: usize| -> Result<f64> {
        let times = (0..count).map(|_| Ok(one()?.as_secs_f64() * 1e3)).collect::<Result<Vec<f64>>>()?;
        Ok(median(&times))
    };
    let ours = || {
        let took = jobs.borrow_mut().ask("move warm small")?;
        compare::same(&a.join("warm"), &b.join("small"))?;
        fs::remove_file(b.join("small"))?;
        Ok(took)
    };
    let floor = || jobs.borrow_mut().ask("floor");
    // Chunks of 64 KiB, so that all slots of both are used.
    let agents = || timed(example("stream").args(["1", "64", "8"]));
    let count = place.sizes.jobs;
    let contest = Contest {
        id: "D8",
        case: format!("apply to Complete of a 1 MiB job, p50 of {count} in each round"),
        unit: Unit::Milliseconds,
        ours: Box::new(move || many(&ours, count)),
        peers: vec![
            Contestant::reference(FLOOR, move || many(&floor, count)),
            Contestant::rival(AGENTS, move || many(&agents, count.div_ceil(10))),
        ],
        missing: Vec::new(),
        goal: vec![
            Clause { against: Against::Peer(FLOOR), bound: Bound::AtMostPlus(MORE) },
            at_least(4.0, Against::Peer(AGENTS)),
        ],
    };
    Ok(vec![contest.run(place.rounds)?])
}

pub fn notes() -> Vec<String> {
    vec![
        "floor: user, operator and both agents as far as their API writes and watches go, with the bodies of a real job \
         and on kinds of the same schema, each write made when its cause is seen, nothing else done."
            .to_owned(),
        "NIXL agents per job: two processes that load NIXL, create an agent each, connect, and move 1 MiB by our stream; \
         without any API server, so it is less than such a design would need. A batch/v1 Job is not measured: it needs \
         a real kubelet."
            .to_owned(),
    ]
}
