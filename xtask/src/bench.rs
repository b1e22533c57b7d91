//! `cargo xtask bench`: ours and the peers in turn on the same bytes, with goals. A goal that is missed is a result; a
//! measurement that is impossible, or bytes that differ, are errors.

mod asked;
mod contest;
mod control;
mod daemon;
mod data;
mod digest;
mod document;
mod fanout;
mod files;
mod goal;
mod host;
mod installed;
mod iperf;
mod jobs;
mod latency;
mod link;
mod machine;
mod memory;
mod namespaces;
mod owned;
mod program;
mod regions;
mod resume;
mod row;
mod sizes;
mod statistics;
mod suite;
mod table;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

use crate::paths;
use crate::test::cargo_build;
use crate::tools::{self, Wanted};
use machine::Machine;
use row::Row;
use sizes::Sizes;
use suite::{Place, Suite};

#[derive(Debug, Args)]
pub struct Arguments {
    /// What is measured [default: every suite that can run here].
    #[arg(value_enum, value_name = "SUITE")]
    suites: Vec<Suite>,
    /// How often everybody takes a turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Write machine and rows to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Put the results of all suites into docs/benchmarks.md.
    #[arg(long, conflicts_with_all = ["suites", "quick"])]
    write: bool,
    /// Little data and few files: shows that all works, not how fast.
    #[arg(long)]
    quick: bool,
    /// Where the data lies while it is moved; memory, unless the disk is the subject.
    #[arg(long, value_name = "DIRECTORY", default_value = "/dev/shm")]
    directory: PathBuf,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    for suite in &arguments.suites {
        if let Err(why) = suite.can_run() {
            bail!("suite {} cannot run: {why}", suite.name());
        }
    }
    tools::ensure(Wanted::Demo)?;
    // The same features as the tests', so that nothing is built twice.
    cargo_build(&["--workspace", "--bins", "--examples"])?;
    let place = Place {
        sizes: if arguments.quick { Sizes::QUICK } else { Sizes::FULL },
        rounds: arguments.rounds.into(),
        directory: arguments.directory.clone(),
    };
    let mut machine = Machine::look(place.rounds)?;
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    let asked = |suite: &Suite| arguments.suites.is_empty() || arguments.suites.contains(suite);
    let mut to_run: Vec<Suite> = Suite::ALL.into_iter().filter(asked).collect();
    while !to_run.is_empty() {
        let suite = to_run.remove(0);
        if let Err(why) = suite.can_run() {
            notes.push(format!("Suite {} was not run: {why}.", suite.name()));
            continue;
        }
        notes.extend(suite.notes());
        let results = suite.run(&place).with_context(|| format!("suite {}", suite.name()))?;
        rows.extend(results.measured.iter().map(Row::of));
        notes.extend(results.notes);
        machine.end()?;
        // After each one: a run of an hour that is broken off has not been for nothing.
        let missing = to_run.iter().map(|suite| format!("Suite {} was not run in this run.", suite.name()));
        save(arguments, &machine, &rows, &notes.iter().cloned().chain(missing).collect::<Vec<_>>())?;
    }
    println!("{}", results(&machine, &rows, &notes));
    Ok(())
}

fn save(arguments: &Arguments, machine: &Machine, rows: &[Row], notes: &[String]) -> Result<()> {
    if let Some(path) = &arguments.json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        let document = json!({"machine": machine.json(), "rows": rows});
        fs::write(path, format!("{document:#}\n")).with_context(|| path.display().to_string())?;
    }
    if arguments.write {
        let path = paths::root().join("docs/benchmarks.md");
        let old = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        fs::write(&path, document::with_results(&old, &results(machine, rows, notes))?)?;
    }
    Ok(())
}

/// What is printed, and what stands in the document.
fn results(machine: &Machine, rows: &[Row], notes: &[String]) -> String {
    let notes: String = notes.iter().map(|note| format!("- {note}\n")).collect();
    format!("Measured on: {}.\n\n{}\n{notes}", machine.text(), table::markdown(rows))
}
