//! `cargo xtask figures`: builds and runs the measurements. All numbers come from those programs; none is a test.

use std::process::Command;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use crate::{
    paths,
    test::cargo_build,
    tools::{self, Wanted},
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// What is measured.
    #[arg(value_enum, default_value_t = What::Jobs)]
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// API writes and memory of a run of small jobs. Takes about a minute.
    Jobs,
    /// The four operations of nixl-connect, beside Dynamo's Python module. Takes about three minutes.
    Connect,
}

/// Measures, and prints.
pub fn run(arguments: &Arguments) -> Result<()> {
    tools::ensure(Wanted::Everything)?;
    let program = match arguments.what {
        What::Jobs => "examples/figures",
        What::Connect => "examples/latency",
    };
    // The same packages and features as the tests', so that nothing is built twice.
    cargo_build(&["--workspace", "--all-targets"])?;
    let status = Command::new(paths::binaries().join(program)).current_dir(paths::root()).status()?;
    ensure!(status.success(), "the measurements ended with {status}");
    Ok(())
}
