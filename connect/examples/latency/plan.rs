//! What is measured: cases in text form, so that a Rust end and a Python one can be given the same list. No I/O.

use std::fmt;
use std::str::FromStr;

/// One thing that two ends do together, or the passive end alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// The active end reads `size` bytes, `count` times.
    Read { size: usize, count: usize },
    /// The active end writes `size` bytes, `count` times.
    Write { size: usize, count: usize },
    /// The passive end rests for so many seconds.
    Idle { seconds: u64 },
    /// The passive end rests for so many seconds with an operation open that nobody completes.
    Open { seconds: u64 },
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { size, count } => write!(formatter, "read:{size}:{count}"),
            Self::Write { size, count } => write!(formatter, "write:{size}:{count}"),
            Self::Idle { seconds } => write!(formatter, "idle:{seconds}:1"),
            Self::Open { seconds } => write!(formatter, "open:{seconds}:1"),
        }
    }
}

impl FromStr for Case {
    type Err = Box<dyn std::error::Error>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is no case, which is KIND:SIZE:COUNT");
        let [kind, size, count] = text.split(':').collect::<Vec<_>>().try_into().map_err(|_| wrong())?;
        Ok(match kind {
            "read" => Self::Read { size: size.parse()?, count: count.parse()? },
            "write" => Self::Write { size: size.parse()?, count: count.parse()? },
            "idle" => Self::Idle { seconds: size.parse()? },
            "open" => Self::Open { seconds: size.parse()? },
            _ => return Err(wrong().into()),
        })
    }
}
