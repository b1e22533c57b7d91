//! Suite `control`, C1 to C4: what the control plane takes. Real etcd, API server and operator; agents are fakes that do
//! an agent's part on the API and move nothing (`tests/examples/bench_control`), but for C2, which is of real ones.

use std::cell::{Cell, RefCell};
use std::fs;

use anyhow::Result;
use devcluster::ClusterDir;

use super::asked::Asked;
use super::contest::{Contest, Contestant};
use super::goal::{Against, at_least, at_most, no_more_than};
use super::jobs::Jobs;
use super::program::example;
use super::row::{Measured, Peer, Unit};
use super::suite::Place;
use crate::demo::dataset;
use crate::progress::Step;

/// As fast as the API server does the writes of jobs alone.
const BOUND: &str = "R / W";
const KUEUE: &str = "Kueue (published)";
/// Jobs per second, as the goals name that project's published figure.
const KUEUE_RATE: f64 = 42.7;
/// Fake agents that share the burst.
const AGENTS: usize = 20;
/// Jobs asked for at once when only their number counts.
const PART: usize = 1_000;
/// Some periods of the Lease.
const IDLE_SECONDS: u64 = 31;
const IDEAL: &str = "ideal";
const MIB: f64 = (1 << 20) as f64;

pub fn run(place: &Place) -> Result<Vec<Measured>> {
    let mut measured = burst_and_memory(place)?;
    measured.splice(1..1, writes(place)?);
    measured.push(events(place)?);
    Ok(measured)
}

pub fn notes() -> Vec<String> {
    vec![
        format!(
            "C1, C3, C4: agents are fakes, {AGENTS} for C1 and C3: TransferNode, Lease, two watches by node and both halves \
             of each task, nothing moved. etcd does not sync. R: the writes of jobs of one hop on copies of the kinds \
             that nobody watches, 16 at once, nothing decided; W: writes per job that the API server counted in the \
             same burst. Kueue's figure is the published one that the goals name, and was not measured here."
        ),
        "C2: real agents, jobs in a row, by the API server's own count; a write that makes no event changes nothing. C3 and \
         C4 are measured once, whatever the rounds: jobs of all bursts are kept, and more are made up to the number. C4: \
         bytes of watches as they come, bookmarks included; the ideal is twice what one watch of all tasks is sent."
            .to_owned(),
    ]
}

/// C1 and C3: the jobs of all bursts stay, so that the operator holds them when its memory is looked at.
fn burst_and_memory(place: &Place) -> Result<Vec<Measured>> {
    let asked = RefCell::new(start(AGENTS)?);
    let (count, kept) = (place.sizes.burst, place.sizes.kept);
    let per_job = Cell::new(0.0);
    let memory = || -> Result<(f64, f64)> {
        let (_, numbers) = asked.borrow_mut().ask_numbers("memory")?;
        Ok((numbers.get("jobs")?, numbers.get("rss")?))
    };
    // Before any burst: what a burst leaves behind in the heap counts, too.
    let before = memory()?;
    let contest = Contest {
        id: "C1",
        case: format!("burst of {count} jobs of one hop, until all are Complete"),
        unit: Unit::JobsPerSecond,
        ours: Box::new(|| {
            let (took, numbers) = asked.borrow_mut().ask_numbers(&format!("burst {count}"))?;
            per_job.set(numbers.get("writes")? / count as f64);
            Ok(count as f64 / took.as_secs_f64())
        }),
        peers: vec![
            Contestant::reference(BOUND, || {
                let (took, numbers) =
                    asked.borrow_mut().ask_numbers(&format!("rate {}", count.div_ceil(2)))?;
                Ok(numbers.get("writes")? / took.as_secs_f64() / per_job.get())
            }),
            Contestant::reference(KUEUE, || Ok(KUEUE_RATE)),
        ],
        missing: Vec::new(),
        goal: vec![at_least(0.8, Against::Peer(BOUND)), at_least(2.0, Against::Peer(KUEUE))],
    };
    let mut measured = vec![contest.run(place.rounds)?];

    let mut step = Step::start(format!("C3 jobs up to {kept}"));
    loop {
        let (jobs, _) = memory()?;
        let more = (kept as f64 - jobs).max(0.0) as usize;
        if more == 0 {
            break;
        }
        step.tick(&format!("{jobs} jobs"));
        asked.borrow_mut().ask(&format!("burst {}", more.min(PART)))?;
    }
    step.done("");
    let after = memory()?;
    let case = format!("operator's memory at {} jobs", after.0);
    measured.push(alone("C3", case, Unit::Mebibytes, vec![after.1 / MIB], 60.0));
    let case = format!("operator's memory from {} to {} jobs", before.0, after.0);
    let slope = (after.1 - before.1) / (after.0 - before.0).max(1.0) / 1024.0;
    measured.push(alone("C3", case, Unit::KibibytesPerJob, vec![slope], 4.0));
    Ok(measured)
}

/// C2.
fn writes(place: &Place) -> Result<Vec<Measured>> {
    let data = ClusterDir::create(&place.directory.join("nixl-transfer-bench"), "control")?;
    let (a, b) = (data.path().join("a"), data.path().join("b"));
    fs::create_dir_all(&b)?;
    dataset::write_files(&a, [("small".to_owned(), 1 << 10)])?;
    let mut jobs = Jobs::start(data.path())?;
    jobs.ask("move small warm")?;
    let step = Step::start("C2 jobs in a row, and none");
    let count = place.sizes.jobs;
    let (mut per_job, mut in_vain) = (Vec::new(), Vec::new());
    for round in 0..place.rounds {
        let numbers = jobs.ask_numbers(&format!("writes {count} small copy-{round}"))?;
        per_job.push((numbers.get("writes")? + numbers.get("refused")?) / count as f64);
        in_vain.push(numbers.get("idle")? + numbers.get("refused")?);
    }
    let idle = jobs.ask_numbers(&format!("idle {IDLE_SECONDS}"))?.get("writes")?;
    step.done("");
    Ok(vec![
        alone("C2", format!("API writes per job of one hop, {count} in a row"), Unit::Writes, per_job, 8.0),
        alone("C2", format!("writes of {count} jobs that change nothing"), Unit::Writes, in_vain, 0.0),
        alone(
            "C2",
            format!("writes in {IDLE_SECONDS} s without a job, Leases apart"),
            Unit::Writes,
            vec![idle],
            0.0,
        ),
    ])
}

/// C4.
fn events(place: &Place) -> Result<Measured> {
    let count = place.sizes.agents;
    let mut asked = start(count)?;
    let step = Step::start(format!("C4 a job from each of {count} agents"));
    let (_, numbers) = asked.ask_numbers(&format!("burst {count}"))?;
    step.done("");
    let case = format!("events of tasks to {count} agents, {count} jobs");
    let (sent, ideal) = (numbers.get("events")? / MIB, numbers.get("ideal")? / MIB);
    let mut measured = alone("C4", case, Unit::Mebibytes, vec![sent], 0.0);
    measured.peers.push(Peer { name: IDEAL, rival: false, values: vec![ideal] });
    measured.goal = vec![at_most(1.1, IDEAL)];
    Ok(measured)
}

fn start(agents: usize) -> Result<Asked> {
    let mut command = example("bench_control");
    command.arg(agents.to_string());
    Asked::start(&format!("a control plane, the operator and {agents} fake agents"), command)
}

/// A case of ours alone, with a bound that is a number.
fn alone(id: &'static str, case: String, unit: Unit, ours: Vec<f64>, bound: f64) -> Measured {
    let goal = vec![no_more_than(bound)];
    Measured { id, case, unit, ours, peers: Vec::new(), missing: Vec::new(), goal }
}
