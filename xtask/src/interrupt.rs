//! Ctrl-C and SIGTERM: the first asks the running command to stop and clear up, the second (or ten seconds) ends the
//! process at once; the kernel then kills what it started.

use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// The exit status of a program that was interrupted.
pub const EXIT_CODE: i32 = 130;

pub fn install() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot handle signals")?;
    thread::spawn(move || {
        for _ in signals.forever() {
            if REQUESTED.swap(true, Ordering::SeqCst) {
                exit(EXIT_CODE);
            }
            eprintln!("\nInterrupted: stopping all that was started (again to end at once).");
            thread::spawn(|| {
                // A deadline for the clean way, not a synchronisation.
                thread::sleep(Duration::from_secs(10));
                exit(EXIT_CODE);
            });
        }
    });
    Ok(())
}

pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// An error once an interrupt was asked for: loops call it.
pub fn check() -> Result<()> {
    if requested() { bail!("interrupted") } else { Ok(()) }
}
