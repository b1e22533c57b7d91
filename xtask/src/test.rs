//! `cargo xtask test`: the steps in order, each timed, all reported at the end. A step that fails does not hide the next.

mod gpu;
mod steps;
pub mod suite;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use crate::interrupt;
use crate::progress::seconds;
use steps::STEPS;
pub use steps::{cargo_build, cargo_test};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Run these steps only, and what they need: format, clippy, build, generated, test, suite. The last one looks at what
    /// the last test has left.
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    only: Vec<String>,
    /// Run the tests that need an NVIDIA GPU, and only them; fails, saying so, where there is none. What stands after `--`
    /// goes to the tests, such as a part of a name. Never part of CI.
    #[arg(long, conflicts_with = "only")]
    gpu: bool,
    /// Passed to `cargo test`, such as `-p transfer-operator name` (then without `--workspace`).
    #[arg(last = true)]
    test_arguments: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// What it needs had failed.
    Skipped,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.gpu {
        return gpu::run(&arguments.test_arguments).map(|()| ExitCode::SUCCESS);
    }
    for name in &arguments.only {
        anyhow::ensure!(STEPS.iter().any(|step| step.name == *name), "there is no step {name}: {}", names());
    }
    let mut results: Vec<(&str, Outcome, Duration)> = Vec::new();
    for step in STEPS {
        let wanted = arguments.only.is_empty() || wanted(step.name, &arguments.only);
        if !wanted {
            continue;
        }
        let failed = |name: &&str| {
            results.iter().any(|(done, outcome, _)| done == name && *outcome != Outcome::Passed)
        };
        if step.needs.iter().any(failed) {
            results.push((step.name, Outcome::Skipped, Duration::ZERO));
            continue;
        }
        eprintln!("── {}: {}", step.name, step.what);
        let started = Instant::now();
        let result = (step.run)(&arguments.test_arguments);
        interrupt::check()?;
        let outcome = match result {
            Ok(()) => Outcome::Passed,
            Err(error) => {
                eprintln!("{}: {error:#}", step.name);
                Outcome::Failed
            }
        };
        results.push((step.name, outcome, started.elapsed()));
    }
    println!("{}", summary(&results));
    let good = results.iter().all(|(_, outcome, _)| *outcome == Outcome::Passed);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A step is wanted when it was named, or when a named one needs it.
fn wanted(name: &str, only: &[String]) -> bool {
    let needed_by = |step: &&steps::Step| step.needs.contains(&name) && wanted(step.name, only);
    name == "tools" || only.iter().any(|named| named == name) || STEPS.iter().any(|step| needed_by(&step))
}

fn names() -> String {
    STEPS.iter().map(|step| step.name).collect::<Vec<_>>().join(", ")
}

fn summary(results: &[(&str, Outcome, Duration)]) -> String {
    let mut text = String::from("\nstep        result   time\n");
    for (name, outcome, time) in results {
        let outcome = match outcome {
            Outcome::Passed => "passed",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "skipped",
        };
        text += &format!("{name:<11} {outcome:<8} {}\n", seconds(*time));
    }
    let total = results.iter().map(|(_, _, time)| *time).sum();
    let failed: Vec<&str> =
        results.iter().filter(|(_, o, _)| *o == Outcome::Failed).map(|(name, ..)| *name).collect();
    let verdict =
        if failed.is_empty() { "all passed".to_owned() } else { format!("failed: {}", failed.join(", ")) };
    text + &format!("total                {}, {verdict}", seconds(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_failed() {
        let second = Duration::from_secs(1);
        let text = summary(&[
            ("format", Outcome::Passed, second),
            ("build", Outcome::Failed, second),
            ("test", Outcome::Skipped, Duration::ZERO),
        ]);
        assert!(text.contains("build       FAILED   1.0 s"), "{text}");
        assert!(text.ends_with("2.0 s, failed: build"), "{text}");
    }

    #[test]
    fn a_named_step_brings_what_it_needs() {
        let wanted_by = |only: &str| -> Vec<&str> {
            STEPS.iter().map(|step| step.name).filter(|name| wanted(name, &[only.to_owned()])).collect()
        };
        assert_eq!(wanted_by("format"), ["tools", "format"]);
        assert_eq!(wanted_by("generated"), ["tools", "build", "generated"]);
        assert_eq!(wanted_by("test"), ["tools", "build", "test"]);
        assert_eq!(wanted_by("suite"), ["tools", "build", "suite"]);
    }

    #[test]
    fn a_step_needs_only_earlier_steps() {
        for (index, step) in STEPS.iter().enumerate() {
            assert!(step.needs.iter().all(|need| STEPS[..index].iter().any(|earlier| earlier.name == *need)));
        }
    }
}
