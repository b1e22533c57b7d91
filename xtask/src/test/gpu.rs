//! `cargo xtask test --gpu`: what needs an NVIDIA GPU, for people and lent machines. CI has none.

use anyhow::{Context, Result};

use super::steps::{cargo_run, cargo_test};

/// Where the tests are that need a GPU, all of them marked `ignored`: package and test.
const TESTS: &[(&str, &str)] = &[("nixl-transfer-gpu", "gpu")];

pub fn run(arguments: &[String]) -> Result<()> {
    // It says what is missing and how to get it, in the words that an agent's operator sees.
    cargo_run(&["--package", "nixl-transfer-gpu", "--example", "devices"])
        .context("there is no NVIDIA GPU that the tests could use, see above; none of them was run")?;
    for (package, test) in TESTS {
        // One at a time: some look at how much of the GPU's memory is free.
        let fixed = ["--package", package, "--test", test, "--", "--ignored", "--test-threads=1"];
        let all: Vec<&str> = fixed.into_iter().chain(arguments.iter().map(String::as_str)).collect();
        cargo_test(&all, &[])?;
    }
    Ok(())
}
