//! Suite `regions`: a file into memory, and memory into memory of another node, as jobs through real agents, beside a plain
//! loop of NIXL. No goal was set for them.

use std::cell::RefCell;
use std::fs;

use anyhow::Result;
use devcluster::ClusterDir;

use super::contest::{Contest, Contestant};
use super::data::remove;
use super::jobs::Jobs;
use super::program::{example, rate};
use super::row::{Measured, Unit};
use super::suite::Place;
use crate::demo::{compare, dataset};

const LOOP: &str = "NIXL loop";
/// Tmpfs to tmpfs by the same kind of job, so that what memory adds or saves can be told from what a job costs.
const FILES: &str = "ours, file to file";

pub fn notes() -> Vec<String> {
    vec![
        "M1, M2: ours is a job, from apply to Complete; the regions are held by agents, allocated before. The loop of NIXL has \
         neither a job nor files nor digests, and a ring of 8 MiB. After each round of M2 the memory is moved into a file, which \
         is compared with the source; that is not in the time."
            .to_owned(),
    ]
}

pub fn run(place: &Place) -> Result<Vec<Measured>> {
    let data = ClusterDir::create(&place.directory.join("nixl-transfer-bench"), "regions")?;
    let (a, b) = (data.path().join("a"), data.path().join("b"));
    fs::create_dir_all(&b)?;
    let bytes = place.sizes.large;
    dataset::write_files(&a, [("large".to_owned(), bytes), ("warm".to_owned(), 1 << 20)])?;
    let jobs = RefCell::new(Jobs::start(data.path())?);
    let ask = |line: &str| -> Result<f64> { Ok(jobs.borrow_mut().ask(line)?.as_secs_f64()) };
    ask("move warm warm")?;
    for (region, node) in [("from", "a"), ("into", "b")] {
        ask(&format!("region {region} {node} {bytes}"))?;
    }
    ask("between a:large memory:from")?;
    let gigabytes = bytes as f64 / 1e9;
    let checked = |seconds: f64, back: bool| {
        if back {
            ask("between memory:into b:large")?;
        }
        compare::same(&a.join("large"), &b.join("large"))?;
        remove(&b.join("large"))?;
        Ok(gigabytes / seconds)
    };
    let mib = (bytes >> 20).to_string();
    let peers = || {
        vec![
            Contestant::rival(LOOP, || rate(example("raw").args([&mib, "polling"]))),
            Contestant::reference(FILES, || checked(ask("move large large")?, false)),
        ]
    };
    let contest = |id, case: String, line: &'static str| {
        let contest = Contest {
            id,
            case,
            unit: Unit::GigabytesPerSecond,
            ours: Box::new(move || checked(ask(line)?, true)),
            peers: peers(),
            missing: Vec::new(),
            goal: Vec::new(),
        };
        contest.run(place.rounds)
    };
    Ok(vec![
        contest("M1", format!("{mib} MiB from a file into memory"), "between a:large memory:into")?,
        contest("M2", format!("{mib} MiB from memory into memory"), "between memory:from memory:into")?,
    ])
}
