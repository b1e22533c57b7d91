//! `cargo xtask test --gpu`: what needs an NVIDIA GPU, for people and lent machines. CI has none.

use anyhow::{Context, Result};

use super::steps::{cargo_build, cargo_run, cargo_test};
use crate::tools::{self, Wanted};

/// The crate's own, all of them marked `ignored`. One at a time: some look at how much of the GPU's memory is free.
const OF_THE_CRATE: &[&str] =
    &["--package", "nixl-transfer-gpu", "--test", "gpu", "--", "--ignored", "--test-threads=1"];
/// Those of the system, which CI runs on a fake driver. Two are left out: they are about the size of a
/// fake GPU, and its faults.
const OF_THE_SYSTEM: &[&str] = &[
    "--package",
    "nixl-transfer-tests",
    "--test",
    "system",
    "--",
    "gpus::",
    "gpu_workloads::",
    "--skip=what_a_gpu_cannot_give",
    "--skip=a_gpu_that_damages",
    "--test-threads=1",
];

pub fn run(arguments: &[String]) -> Result<()> {
    // It says what is missing and how to get it, in the words that an agent's operator sees.
    cargo_run(&["--package", "nixl-transfer-gpu", "--example", "devices"])
        .context("there is no NVIDIA GPU that the tests could use, see above; none of them was run")?;
    test(OF_THE_CRATE, arguments, &[])?;
    tools::ensure(Wanted::Demo)?;
    // The tests start the programs themselves.
    cargo_build(&["--workspace"])?;
    test(OF_THE_SYSTEM, arguments, &[("NIXL_TRANSFER_REAL_GPUS", "1")])
}

fn test(fixed: &[&str], more: &[String], variables: &[(&str, &str)]) -> Result<()> {
    let all: Vec<&str> = fixed.iter().copied().chain(more.iter().map(String::as_str)).collect();
    cargo_test(&all, variables)
}
