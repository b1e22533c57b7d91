//! The shell: which of the three processes this is.

use clap::Parser;
use transfer_agent::config::{Cli, Command};

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Control { .. } | Command::Launcher(_) | Command::Worker { .. } => anyhow::bail!("not built yet"),
    }
}
