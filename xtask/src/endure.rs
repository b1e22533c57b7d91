//! `cargo xtask endure`: the tests that take minutes, those that are marked `ignored`: many cycles that must leave nothing
//! behind, and many bytes that must not need more memory.

use anyhow::Result;

use crate::test;
use crate::tools::{self, Wanted};

pub fn run() -> Result<()> {
    tools::ensure(Wanted::Demo)?;
    // The tests start the programs themselves.
    test::cargo_build(&["--workspace"])?;
    test::cargo_test(&["--package", "nixl-transfer-tests", "--test", "system", "--", "--ignored"], &[])
}
