//! The steps of `cargo xtask test`. All that compiles uses one profile and one set of features, so nothing is built twice;
//! clippy keeps check artefacts of its own beside them.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use devcluster::SUITE_RECORD;

use super::suite;
use crate::paths;
use crate::tools::{self, Wanted};

pub struct Step {
    pub name: &'static str,
    pub what: &'static str,
    /// Skipped when one of these failed.
    pub needs: &'static [&'static str],
    /// Gets the arguments that stood after `--`.
    pub run: fn(&[String]) -> Result<()>,
}

pub const STEPS: &[Step] = &[
    Step {
        name: "tools",
        what: "everything that the build and the tests need",
        needs: &[],
        run: |_| tools::ensure(Wanted::Everything),
    },
    Step {
        name: "format",
        what: "cargo fmt --check",
        needs: &[],
        run: |_| cargo(&["fmt", "--all", "--check"]),
    },
    Step {
        name: "clippy",
        what: "lints, warnings are errors",
        needs: &["tools"],
        run: |_| cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]),
    },
    // Test targets too: with them the features are the ones of the last step, whose build then is this one.
    Step {
        name: "build",
        what: "binaries and tests",
        needs: &["tools"],
        run: |_| cargo(&["build", "--workspace", "--all-targets", "--locked"]),
    },
    Step {
        name: "generated",
        what: "generated files are fresh",
        needs: &["build"],
        run: |_| run(Command::new(paths::binaries().join("crdgen")).arg("--check")),
    },
    Step {
        name: "test",
        what: "unit tests, and integration tests on the real control plane",
        needs: &["build"],
        run: test,
    },
    // Also after tests that failed: what their clusters did and told is as true.
    Step {
        name: "suite",
        what: "what all clusters of the tests did and told",
        needs: &["build"],
        run: |_| suite::check(),
    },
];

fn test(arguments: &[String]) -> Result<()> {
    let is_whole = arguments.is_empty();
    let some = arguments.iter().any(|argument| argument == "-p" || argument.starts_with("--package"));
    let all = if some { &[][..] } else { &["--workspace"] };
    let arguments: Vec<&str> = all.iter().copied().chain(arguments.iter().map(String::as_str)).collect();
    let records = suite::fresh()?;
    let records = records.to_str().context("the path of the target directory is no text")?;
    cargo_test(&arguments, &[(SUITE_RECORD, records)])?;
    if is_whole { suite::was_whole() } else { Ok(()) }
}

/// `cargo test` with all that the tests need to find, and further variables.
pub fn cargo_test(arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    let tools = paths::tools();
    // Every failing test is named, not only those of the first crate.
    let mut command = command(&["test", "--locked", "--no-fail-fast"]);
    command.args(arguments).envs(variables.iter().copied());
    command.env("NIXL_TRANSFER_NIXL_LIBRARY", tools.join("nixl/lib/libnixl_capi.so"));
    command.env("NIXL_TRANSFER_NIXL_PLUGINS", tools.join("nixl/plugins"));
    command.env("NIXL_TRANSFER_PYTHON_PEERS", tools.join("python"));
    command.env("NIXL_TRANSFER_ASSETS", tools.join("bin"));
    command.env("NIXL_TRANSFER_BIN_DIR", paths::binaries());
    // More than the cores: many tests wait for deadlines, leases and restarts most of the time.
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        command.env("RUST_TEST_THREADS", "5");
    }
    // Errors of tests name what is wrong; where they were made is of no use.
    command.env("RUST_LIB_BACKTRACE", "0");
    run(&mut command)
}

/// `cargo build` in the development profile; cargo shows its own progress.
pub fn cargo_build(arguments: &[&str]) -> Result<()> {
    run(command(&["build", "--locked"]).args(arguments))
}

/// `cargo run` of a program whose output is for whoever called us.
pub fn cargo_run(arguments: &[&str]) -> Result<()> {
    run(command(&["run", "--locked", "--quiet"]).args(arguments))
}

fn cargo(arguments: &[&str]) -> Result<()> {
    run(&mut command(arguments))
}

/// cargo as the user would call it. `cargo xtask` has set variables about the package xtask; build scripts that look at
/// them would run again at every change between this and a plain `cargo build`, and with them half of the workspace.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(of_package) {
            command.env_remove(name);
        }
    }
    command
}

/// Output goes to the terminal as it comes.
fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status =
        command.current_dir(paths::root()).status().with_context(|| format!("cannot start {name}"))?;
    ensure!(status.success(), "{name} ended with {status}");
    Ok(())
}
