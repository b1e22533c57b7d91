//! Suite `files`, D4 and D5: one large file and trees of small ones, from node to node through real agents, against what
//! copies files otherwise. A job's time is from apply to Complete; every copy is compared with its source.

pub mod peers;
mod tar;

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use devcluster::ClusterDir;

use super::contest::{Contest, Contestant};
use super::data::{remove, touch_memory};
use super::goal::{Against, Clause, at_least};
use super::jobs::Jobs;
use super::row::{Measured, Unit};
use super::suite::Place;
use crate::demo::{compare, dataset};
use peers::{RCLONE, RSYNC, TAR};

pub use peers::notes;

pub fn run(place: &Place) -> Result<Vec<Measured>> {
    let data = ClusterDir::create(&place.directory.join("nixl-transfer-bench"), "files")?;
    let volumes = Volumes { a: data.path().join("a"), b: data.path().join("b") };
    fs::create_dir_all(&volumes.a)?;
    fs::create_dir_all(&volumes.b)?;
    touch_memory(&volumes.b, 4 * place.sizes.large)?;
    let (large, files) = (place.sizes.large, place.sizes.files);
    dataset::write_files(&volumes.a, [("large".to_owned(), large), ("warm".to_owned(), 1 << 20)])?;
    let jobs = RefCell::new(Jobs::start(data.path())?);
    // The first job of a worker is not like the others.
    jobs.borrow_mut().ask("move warm warm")?;
    let peers = peers::start(&volumes)?;
    let mut measured = Vec::new();

    let goal = vec![at_least(2.0, Against::BestRival), at_least(3.0, Against::Peer(RSYNC))];
    let case =
        Case { id: "D4", title: format!("{} MiB file to file, digests on", large >> 20), name: "large" };
    measured.push(case.run(
        place,
        &volumes,
        &jobs,
        &peers,
        (Unit::GigabytesPerSecond, large as f64 / 1e9),
        goal,
    )?);
    fs::remove_file(volumes.a.join("large"))?;

    for (name, kib) in [("tree-4", 4_u64), ("tree-64", 64)] {
        let names = (0..files).map(|at| (format!("{:02}/file-{at}", at % 100), kib << 10));
        dataset::write_files(&volumes.a.join(name), names)?;
        let goal = vec![
            at_least(1.0, Against::Peer(TAR)),
            at_least(3.0, Against::Peer(RCLONE)),
            at_least(2.0, Against::Peer(RSYNC)),
        ];
        let case = Case { id: "D5", title: format!("{files} files of {kib} KiB"), name };
        measured.push(case.run(
            place,
            &volumes,
            &jobs,
            &peers,
            (Unit::FilesPerSecond, files as f64),
            goal,
        )?);
        fs::remove_dir_all(volumes.a.join(name))?;
    }
    Ok(measured)
}

/// The volumes of both nodes, which the peers use too.
pub struct Volumes {
    pub a: PathBuf,
    pub b: PathBuf,
}

struct Case {
    id: &'static str,
    title: String,
    /// What is copied from one volume to the other, a file or a directory.
    name: &'static str,
}

impl Case {
    fn run(
        self,
        place: &Place,
        volumes: &Volumes,
        jobs: &RefCell<Jobs>,
        peers: &[peers::Peer],
        (unit, amount): (Unit, f64),
        goal: Vec<Clause>,
    ) -> Result<Measured> {
        let Self { id, title: case, name } = self;
        let (from, to) = (volumes.a.join(name), volumes.b.join(name));
        let checked = |seconds: f64| {
            compare::same(&from, &to)?;
            remove(&to)?;
            Ok(amount / seconds)
        };
        let checked = &checked;
        let contestant = |peer| {
            let peers::Peer { name: who, rival, copy }: &peers::Peer = peer;
            let run = move || checked(copy(name)?.as_secs_f64());
            if *rival { Contestant::rival(who, run) } else { Contestant::reference(who, run) }
        };
        let ours = || checked(jobs.borrow_mut().ask(&format!("move {name} {name}"))?.as_secs_f64());
        let peers = peers.iter().map(contestant).collect();
        Contest { id, case, unit, ours: Box::new(ours), peers, missing: peers::missing(), goal }
            .run(place.rounds)
    }
}
