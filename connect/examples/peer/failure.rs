//! What `peer` prints when it fails: a name for programs and a message for people.

use std::fmt::Display;

use nixl_connect::{LibraryError, MemoryError, MetadataError, OperationError, Refused, SessionError};
use serde::Serialize;

#[derive(Serialize)]
pub struct Failure {
    error: &'static str,
    message: String,
}

impl Failure {
    pub fn new(error: &'static str, message: impl Display) -> Self {
        Self { error, message: message.to_string() }
    }
}

impl From<OperationError> for Failure {
    fn from(error: OperationError) -> Self {
        Self::new(error.name(), error)
    }
}

impl<D> From<Refused<D>> for Failure {
    fn from(refused: Refused<D>) -> Self {
        refused.error.into()
    }
}

impl From<MetadataError> for Failure {
    fn from(error: MetadataError) -> Self {
        Self::new(error.name(), error)
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        Self::new("Session", error)
    }
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        Self::new("Memory", error)
    }
}

impl From<LibraryError> for Failure {
    fn from(error: LibraryError) -> Self {
        Self::new("Library", error)
    }
}
