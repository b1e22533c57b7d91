//! The suites by name: which can run here, what each leaves out, and where its work is.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

use super::control;
use super::digest;
use super::fanout;
use super::files;
use super::latency;
use super::link;
use super::memory;
use super::namespaces::Namespaces;
use super::regions;
use super::resume;
use super::row::Measured;
use super::sizes::Sizes;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// D1, D2: memory to memory. D2 needs root, for network namespaces.
    Memory,
    /// D4, D5: one large file and many small ones, through real agents.
    Files,
    /// M1, M2: files and memory into memory that agents hold.
    Regions,
    /// D8: from apply to Complete of a small job.
    Latency,
    /// D10: what digests cost.
    Digest,
    /// D3: over a shaped link. Needs root, for network namespaces.
    Link,
    /// D6, D7: one to many over shaped links. Needs root.
    Fanout,
    /// D9: killed and resumed. Needs root.
    Resume,
    /// C1 to C4: the control plane, with fake agents.
    Control,
}

/// What a suite has measured, and what is to be said about it.
#[derive(Clone, Debug, Default)]
pub struct Results {
    pub measured: Vec<Measured>,
    pub notes: Vec<String>,
}

impl From<Vec<Measured>> for Results {
    fn from(measured: Vec<Measured>) -> Self {
        Self { measured, notes: Vec::new() }
    }
}

/// Where and how much.
#[derive(Clone, Debug)]
pub struct Place {
    pub sizes: Sizes,
    pub rounds: usize,
    pub directory: PathBuf,
}

impl Suite {
    pub const ALL: [Self; 9] = [
        Self::Memory,
        Self::Files,
        Self::Regions,
        Self::Latency,
        Self::Digest,
        Self::Link,
        Self::Fanout,
        Self::Resume,
        Self::Control,
    ];

    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Why it cannot run here, if so.
    pub fn can_run(self) -> Result<(), String> {
        match self {
            Self::Memory | Self::Files | Self::Regions | Self::Latency | Self::Digest | Self::Control => {
                Ok(())
            }
            Self::Link | Self::Fanout | Self::Resume => {
                Namespaces::possible().map_err(|why| format!("no network namespaces ({why}); it needs root"))
            }
        }
    }

    /// What it does not measure although its name would say so, and which peers are missing.
    pub fn notes(self) -> Vec<String> {
        match self {
            Self::Memory => memory::notes(),
            Self::Files => files::notes(),
            Self::Regions => regions::notes(),
            Self::Latency => latency::notes(),
            Self::Link => link::notes(),
            Self::Fanout => fanout::notes(),
            Self::Resume => resume::notes(),
            Self::Control => control::notes(),
            Self::Digest => Vec::new(),
        }
    }

    pub fn run(self, place: &Place) -> Result<Results> {
        Ok(match self {
            Self::Memory => memory::run(place.sizes, place.rounds)?.into(),
            Self::Files => files::run(place)?.into(),
            Self::Regions => regions::run(place)?.into(),
            Self::Latency => latency::run(place)?.into(),
            Self::Digest => digest::run(place)?.into(),
            Self::Link => link::run(place)?.into(),
            Self::Fanout => fanout::run(place)?,
            Self::Resume => resume::run(place)?,
            Self::Control => control::run(place)?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_have_the_names_that_were_promised_and_say_why_they_cannot_run() {
        assert_eq!(Suite::value_variants(), Suite::ALL, "none is forgotten when all are run");
        let names: Vec<String> = Suite::ALL.into_iter().map(Suite::name).collect();
        let promised =
            ["memory", "files", "regions", "latency", "digest", "link", "fanout", "resume", "control"];
        assert_eq!(names, promised);
        for suite in [Suite::Link, Suite::Fanout, Suite::Resume] {
            assert_eq!(suite.can_run().is_err(), Namespaces::possible().is_err());
        }
    }
}
