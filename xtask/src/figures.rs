//! `cargo xtask figures`: builds and runs the measurements of the tests crate. All numbers come from there.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::{
    paths,
    test::cargo_build,
    tools::{self, Wanted},
};

/// Measures, and prints.
pub fn run() -> Result<()> {
    tools::ensure(Wanted::Everything)?;
    // The same packages and features as the tests', so that nothing is built twice.
    cargo_build(&["--workspace", "--all-targets"])?;
    let status =
        Command::new(paths::binaries().join("examples/figures")).current_dir(paths::root()).status()?;
    ensure!(status.success(), "the measurements ended with {status}");
    Ok(())
}
