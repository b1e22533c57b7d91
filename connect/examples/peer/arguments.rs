//! The command line of `peer`.

use std::time::{Duration, Instant};

use clap::{Args, Parser};
use nixl_connect::RdmaMetadata;

use crate::failure::Failure;

/// One side of one operation between two processes, over NIXL.
#[derive(Parser)]
#[command(name = "peer", arg_required_else_help = false)]
pub enum Role {
    /// Offers memory to be read.
    Readable(Passive),
    /// Offers memory to be written.
    Writable(Passive),
    /// Reads what the metadata on standard input offers.
    Read(Active),
    /// Writes into what the metadata on standard input offers.
    Write(Active),
}

#[derive(Args)]
pub struct Passive {
    /// Sizes of the pieces of memory, in bytes.
    #[arg(long, value_name = "N", value_delimiter = ',', required = true)]
    pub size: Vec<usize>,
    /// Writes the metadata in hexadecimal, all that peers before October 2025 know.
    #[arg(long)]
    pub hex: bool,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args)]
pub struct Active {
    /// Sizes of the pieces of memory, in bytes; those of the metadata by default.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    size: Vec<usize>,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args)]
pub struct Common {
    /// The value of every byte of the local memory before the operation. By default a source has bytes that depend on
    /// their place, and a target has zeros.
    #[arg(long, value_name = "BYTE")]
    pub fill: Option<u8>,
    /// Longest wait for the metadata, and then for the peer, in seconds.
    #[arg(long, value_name = "S", default_value = "30", value_parser = seconds)]
    pub timeout: Duration,
}

impl Role {
    /// Help and usage go to standard error, which people read.
    pub fn from_arguments() -> Result<Self, Failure> {
        Self::try_parse().map_err(|error| {
            let text = error.to_string();
            eprint!("{text}");
            let first: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
            Failure::new("Arguments", first.join(" ").trim_start_matches("error: "))
        })
    }

    pub fn common(&self) -> &Common {
        match self {
            Self::Readable(Passive { common, .. }) | Self::Writable(Passive { common, .. }) => common,
            Self::Read(Active { common, .. }) | Self::Write(Active { common, .. }) => common,
        }
    }
}

impl Active {
    pub fn sizes(&self, remote: &RdmaMetadata) -> Result<Vec<usize>, Failure> {
        if !self.size.is_empty() {
            return Ok(self.size.clone());
        }
        let too_large = |error| Failure::new("Memory", error);
        remote.descriptors().iter().map(|remote| remote.size.try_into().map_err(too_large)).collect()
    }
}

impl Common {
    /// The timeout from now on.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let duration = Duration::try_from_secs_f64(seconds).ok();
    duration.filter(|duration| *duration <= Duration::from_secs(86_400)).ok_or("0 to 86400 s".to_owned())
}
