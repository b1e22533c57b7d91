//! The four operations behind one face, the memory that they begin with, and errors by their stable names.

use std::time::{Duration, Instant};

use nixl_connect::{
    ActiveOperation, CheckedMetadata, Descriptor, MetadataError, OperationError, OperationStatus,
    PassiveOperation, RdmaMetadata,
};

use super::contents;

/// A name for programs, and the message.
pub struct Failure(pub &'static str, pub String);

pub type Answer<T> = Result<T, Failure>;

pub trait Held {
    fn status(&self) -> OperationStatus;
    fn wait(&self, deadline: Instant) -> Answer<()>;
    fn expect(&self, sender: CheckedMetadata) -> Answer<()>;
    fn sha256(&self) -> Answer<String>;
}

impl<D: AsRef<Descriptor> + Unpin> Held for PassiveOperation<D> {
    fn status(&self) -> OperationStatus {
        self.status()
    }

    fn wait(&self, deadline: Instant) -> Answer<()> {
        Ok(self.wait_for_completion(deadline).blocking()?)
    }

    fn expect(&self, sender: CheckedMetadata) -> Answer<()> {
        Ok(self.expect_sender(sender)?)
    }

    fn sha256(&self) -> Answer<String> {
        Ok(sum(self.results()?))
    }
}

impl<D: AsRef<Descriptor> + Unpin> Held for ActiveOperation<D> {
    fn status(&self) -> OperationStatus {
        self.status()
    }

    fn wait(&self, deadline: Instant) -> Answer<()> {
        Ok(self.wait_for_completion(deadline).blocking()?)
    }

    fn expect(&self, _sender: CheckedMetadata) -> Answer<()> {
        Err(mistake("an active operation expects nobody"))
    }

    fn sha256(&self) -> Answer<String> {
        Ok(sum(self.results()?))
    }
}

fn sum(descriptors: &[impl AsRef<Descriptor>]) -> String {
    contents::sha256(descriptors.iter().map(|one| one.as_ref().bytes().unwrap_or_default()))
}

/// Memory with the pattern.
pub fn source(lengths: &[usize]) -> Answer<Vec<Descriptor>> {
    let mut place = 0;
    let filled = lengths.iter().map(|length| {
        let bytes: Vec<u8> = (place..).take(*length).map(contents::byte).collect();
        place += *length as u64;
        Descriptor::from_vec(bytes).map_err(mistake)
    });
    filled.collect()
}

/// Memory with zeros.
pub fn target(lengths: &[usize]) -> Answer<Vec<Descriptor>> {
    lengths.iter().map(|length| Descriptor::zeroed(*length).map_err(mistake)).collect()
}

/// `64,32,1`, or `-` for those of the metadata.
pub fn lengths(text: &str, remote: Option<&RdmaMetadata>) -> Answer<Vec<usize>> {
    match remote {
        Some(remote) if text == "-" => {
            remote.descriptors().iter().map(|one| one.size.try_into().map_err(mistake)).collect()
        }
        _ => text.split(',').map(|length| length.parse().map_err(mistake)).collect(),
    }
}

pub fn after(milliseconds: &str) -> Answer<Instant> {
    Ok(Instant::now() + Duration::from_millis(milliseconds.parse().map_err(mistake)?))
}

/// A fault of the test itself.
pub fn mistake(what: impl std::fmt::Display) -> Failure {
    Failure("Mistake", what.to_string())
}

impl From<OperationError> for Failure {
    fn from(error: OperationError) -> Self {
        Self(error.name(), error.to_string())
    }
}

impl From<MetadataError> for Failure {
    fn from(error: MetadataError) -> Self {
        Self(error.name(), error.to_string())
    }
}
