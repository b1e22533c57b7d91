//! Suite `link`, D3: one file over a link of 1 Gbit/s, through real agents on nodes that are network namespaces. What they
//! tell the API server goes another way that is not shaped, so the link has data only.

use std::cell::RefCell;
use std::fs;

use anyhow::Result;
use devcluster::ClusterDir;

use super::contest::{Contest, Contestant};
use super::data::{ensure_memory, remove, touch_memory};
use super::files::Volumes;
use super::files::peers::{self, Peer};
use super::goal::{Against, at_least};
use super::host::Host;
use super::installed::{is_installed, missing_note};
use super::iperf;
use super::jobs::Jobs;
use super::namespaces::{Namespaces, Speed};
use super::row::{Measured, Unit};
use super::suite::Place;
use crate::demo::{compare, dataset};

const IPERF: &str = "iperf3";
const NAME: &str = "large";

pub fn run(place: &Place) -> Result<Vec<Measured>> {
    let bytes = place.sizes.large;
    ensure_memory(2 * bytes + (1 << 30))?;
    let data = ClusterDir::create(&place.directory.join("nixl-transfer-bench"), "link")?;
    let volumes = Volumes { a: data.path().join("a"), b: data.path().join("b") };
    fs::create_dir_all(&volumes.b)?;
    dataset::write_files(&volumes.a, [(NAME.to_owned(), bytes), ("warm".to_owned(), 1 << 20)])?;
    touch_memory(&volumes.b, bytes)?;
    let spaces = Namespaces::start(2, Speed::Gigabit)?;
    let (a, b) = (Host::Node(&spaces, 0), Host::Node(&spaces, 1));
    let jobs = RefCell::new(Jobs::start_in(data.path(), &spaces)?);
    // The first job of a worker is not like the others.
    jobs.borrow_mut().ask("move warm warm")?;
    let copiers = peers::with_daemons(&volumes, a, b)?;
    let checked = |seconds: f64| {
        let copy = volumes.b.join(NAME);
        compare::same(&volumes.a.join(NAME), &copy)?;
        remove(&copy)?;
        Ok(bytes as f64 / 1e9 / seconds)
    };
    let checked = &checked;
    let mut contestants: Vec<Contestant> = copiers
        .iter()
        .map(|Peer { name, copy, .. }| Contestant::rival(name, move || checked(copy(NAME)?.as_secs_f64())))
        .collect();
    if is_installed(IPERF) {
        contestants.push(Contestant::reference(IPERF, || iperf::rate(a, b, bytes)));
    }
    let contest = Contest {
        id: "D3",
        case: format!("{} MiB file to file over a link of 1 Gbit/s, digests on", bytes >> 20),
        unit: Unit::GigabytesPerSecond,
        ours: Box::new(|| checked(jobs.borrow_mut().ask(&format!("move {NAME} {NAME}"))?.as_secs_f64())),
        peers: contestants,
        missing: missing(),
        goal: vec![at_least(0.97, Against::Peer(IPERF))],
    };
    Ok(vec![contest.run(place.rounds)?])
}

pub fn notes() -> Vec<String> {
    let mut notes: Vec<String> = missing().into_iter().map(missing_note).collect();
    notes.push(
        "D3: each node is a network namespace with two devices: one for data on a bridge, shaped by tbf to 1 Gbit/s at \
         both of its ends, and one for control, not shaped, by which agents reach the API server. Time is from apply to \
         Complete; iperf3's is that of one stream alone."
            .to_owned(),
    );
    notes
}

fn missing() -> Vec<&'static str> {
    let mut missing = peers::missing();
    missing.extend((!is_installed(IPERF)).then_some(IPERF));
    missing
}
