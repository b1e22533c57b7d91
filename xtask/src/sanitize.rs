//! `cargo xtask sanitize`: the tests of the four operations with AddressSanitizer in our code and over UCX's copies, in a
//! target directory of their own.

use anyhow::Result;

use crate::test;
use crate::tools::{self, Wanted};

/// What a process uses grows with the sanitizer's own quarantine, so the test that bounds it says nothing here.
const SKIPPED: &str = "a_thousand_operations_in_a_row_leave_nothing_behind";

pub fn run() -> Result<()> {
    tools::ensure(Wanted::Demo)?;
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let arguments = ["--package", "nixl-connect", "--test", "operations", "--target", &target];
    let arguments = [&arguments[..], &["--target-dir", "target/asan", "--", "--skip", SKIPPED]].concat();
    let variables = [
        // The sanitizer is part of the stable toolchain, but its flag is not stable.
        ("RUSTC_BOOTSTRAP", "1"),
        ("RUSTFLAGS", "-Zsanitizer=address"),
        // Memory that a peer may still reach is left on purpose.
        ("ASAN_OPTIONS", "detect_leaks=0"),
    ];
    test::cargo_test(&arguments, &variables)
}
