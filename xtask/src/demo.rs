//! `cargo xtask demo`: the whole product on one machine, from nothing to compared bytes. A column of phases, one file each.

pub mod compare;
pub mod dataset;
pub mod jobs;
mod report;
mod start;
mod watch;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use devcluster::{KeptCluster, Tie};

use crate::interrupt;
use crate::paths;
use crate::progress::{Step, seconds};
use crate::test::cargo_build;
use crate::tools::{self, Wanted};
use jobs::Job;
use start::Running;

/// What is applied, in this order; below the checkout.
const EXAMPLES: &[&str] = &["examples/one-to-many.yaml", "examples/one-file.yaml"];

#[derive(Debug, Args)]
pub struct Arguments {
    /// How many nodes: one source, the others receive.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=16))]
    nodes: u8,
    /// Leave it running afterwards; say what to try.
    #[arg(long)]
    keep: bool,
    /// End what an earlier --keep left running, and remove its files.
    #[arg(long, conflicts_with_all = ["nodes", "keep", "json"])]
    stop: bool,
    /// Write what was done to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the nodes' files go [default: a directory for temporary files].
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.stop {
        return stop_kept();
    }
    if arguments.keep
        && let Some(kept) = KeptCluster::find()?
    {
        bail!("a demo is kept already, in {}: `cargo xtask demo --stop` ends it", kept.directory.display());
    }
    let started = Instant::now();
    tools::ensure(Wanted::Demo)?;
    let binaries = match std::env::var_os("NIXL_TRANSFER_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => {
            cargo_build(&["-p", "transfer-operator", "-p", "transfer-agent"])?;
            paths::binaries()
        }
    };
    let tie = if arguments.keep { Tie::Free } else { Tie::DiesWithParent };
    let mut running = start::start(arguments.nodes, tie, arguments.directory.clone(), &binaries)?;
    match move_and_compare(&running) {
        Ok(jobs) => finish(arguments, running, &jobs, started),
        Err(error) if interrupt::requested() => {
            running.stop();
            Err(error)
        }
        Err(error) => {
            // Whoever looks for the cause needs the logs; the next demo removes them.
            running.cluster.keep_files();
            let logs = running.cluster.path().display().to_string();
            running.stop();
            Err(error.context(format!("the demo failed; logs, configurations and volumes are in {logs}")))
        }
    }
}

/// Applies the examples, follows them to their end, compares every byte.
fn move_and_compare(running: &Running) -> Result<Vec<Job>> {
    let files: Vec<PathBuf> = EXAMPLES.iter().map(|path| paths::root().join(path)).collect();
    let applied = Instant::now();
    let expected = jobs::apply(running.plane.admin(), &files)?;
    let jobs = watch::until_ended(running, &expected, applied)?;
    let failed: Vec<&Job> = jobs.iter().filter(|job| !job.is_complete()).collect();
    if !failed.is_empty() {
        report::explain(&running.plane, &failed);
        bail!("{} did not complete", failed.iter().map(|job| job.title()).collect::<Vec<_>>().join(", "));
    }
    compare::every_byte(running, &jobs)?;
    Ok(jobs)
}

fn finish(arguments: &Arguments, running: Running, jobs: &[Job], started: Instant) -> Result<()> {
    println!("\n{}", running.plane.kubectl(&["get", "tj,tt,tn", "-A"])?.trim_end());
    println!("\n{}", report::table(jobs));
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&report::json(&running, jobs))? + "\n";
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if arguments.keep {
        let hints = report::what_to_try(&running);
        let Running { cluster, plane, operator, agents } = running;
        KeptCluster::keep(cluster, plane, operator, agents)?;
        println!("{hints}");
    } else {
        let step = Step::start("stopping everything");
        running.stop();
        step.done("");
    }
    println!(
        "Done in {}: every byte of every copy was compared with its source.",
        seconds(started.elapsed())
    );
    Ok(())
}

fn stop_kept() -> Result<()> {
    let kept = KeptCluster::find()?;
    ensure!(kept.is_some(), "no demo is kept");
    if let Some(kept) = kept {
        kept.stop()?;
        println!("Ended {} processes and removed {}.", kept.pids.len(), kept.directory.display());
    }
    Ok(())
}
