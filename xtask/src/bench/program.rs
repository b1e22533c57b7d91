//! Runs what is measured, as processes of their own with a deadline.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{exec, paths};

/// Longer than anything takes that is worth measuring.
pub const LONGEST: Duration = Duration::from_secs(300);

/// Runs it to its end and gives the time that took.
pub fn timed(command: &mut Command) -> Result<Duration> {
    let since = Instant::now();
    exec::watched_within(command, LONGEST, |_| {})?;
    Ok(since.elapsed())
}

/// An example of ours, as built, with NIXL as the tools step got it.
pub fn example(name: &str) -> Command {
    let nixl = paths::tools().join("nixl");
    let mut command = Command::new(paths::binaries().join("examples").join(name));
    command.env("NIXL_TRANSFER_NIXL_LIBRARY", nixl.join("lib/libnixl_capi.so"));
    command.env("NIXL_TRANSFER_NIXL_PLUGINS", nixl.join("plugins"));
    command
}

/// Runs it and reads the rate that it prints, in GB/s.
pub fn rate(command: &mut Command) -> Result<f64> {
    let mut rate = None;
    exec::watched_within(command, LONGEST, |line| rate = line.and_then(printed_rate).or(rate))?;
    rate.with_context(|| format!("{command:?} printed no rate"))
}

/// The number before `GB/s`.
fn printed_rate(line: &str) -> Option<f64> {
    line.split_once(" GB/s")?.0.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_rate_is_found() {
        assert_eq!(printed_rate("sent 7 bytes in 0.1 s: 5.25 GB/s"), Some(5.25));
        assert_eq!(printed_rate("received 7 bytes"), None);
        assert_eq!(printed_rate("fast GB/s"), None);
    }

    #[test]
    fn a_program_without_a_rate_is_no_measurement() {
        assert!(rate(Command::new("echo").arg("done")).is_err());
        assert_eq!(rate(Command::new("echo").arg("it is 2.5 GB/s")).unwrap(), 2.5);
        assert!(rate(Command::new("sh").args(["-c", "echo 2.5 GB/s; exit 1"])).is_err());
    }
}
