//! The four operations behind one face, and operations that are about to start.

use std::sync::Arc;
use std::time::Instant;

use nixl_connect::{
    ActiveOperation, CheckedMetadata, Descriptor, OperationError, OperationStatus, PassiveOperation, Refused,
};

use super::memory;
use super::role::Answer;

pub trait Held {
    fn status(&self) -> OperationStatus;
    fn wait(&self, deadline: Instant) -> Result<(), OperationError>;
    fn release(&self, deadline: Instant) -> Result<(), OperationError>;
    fn cancel(&self) -> Result<(), OperationError>;
    fn expect(&self, sender: CheckedMetadata) -> Result<(), OperationError>;
    fn peer(&self) -> Option<String>;
    /// Compares the results with what belongs there.
    fn results(&self, seed: &str) -> Answer;
    /// What a passive operation offers.
    fn metadata(&self) -> Option<String>;
    fn take(self: Box<Self>) -> Result<Vec<Arc<Descriptor>>, Box<dyn Held>>;
}

impl<D: AsRef<Descriptor> + Into<Arc<Descriptor>> + Unpin + 'static> Held for PassiveOperation<D> {
    fn status(&self) -> OperationStatus {
        self.status()
    }

    fn wait(&self, deadline: Instant) -> Result<(), OperationError> {
        self.wait_for_completion(deadline).blocking()
    }

    fn release(&self, _deadline: Instant) -> Result<(), OperationError> {
        Err(OperationError::NotComplete(self.status()))
    }

    fn cancel(&self) -> Result<(), OperationError> {
        self.cancel()
    }

    fn expect(&self, sender: CheckedMetadata) -> Result<(), OperationError> {
        self.expect_sender(sender)
    }

    fn peer(&self) -> Option<String> {
        self.sender().map(|sender| sender.to_string())
    }

    fn results(&self, seed: &str) -> Answer {
        memory::compare(self.results()?, seed)
    }

    fn metadata(&self) -> Option<String> {
        Some(self.metadata().to_json())
    }

    fn take(self: Box<Self>) -> Result<Vec<Arc<Descriptor>>, Box<dyn Held>> {
        match self.into_descriptors() {
            Ok(descriptors) => Ok(descriptors.into_iter().map(Into::into).collect()),
            Err(operation) => Err(Box::new(operation)),
        }
    }
}

impl<D: AsRef<Descriptor> + Into<Arc<Descriptor>> + Unpin + 'static> Held for ActiveOperation<D> {
    fn status(&self) -> OperationStatus {
        self.status()
    }

    fn wait(&self, deadline: Instant) -> Result<(), OperationError> {
        self.wait_for_completion(deadline).blocking()
    }

    fn release(&self, deadline: Instant) -> Result<(), OperationError> {
        self.wait_for_release(deadline).blocking()
    }

    fn cancel(&self) -> Result<(), OperationError> {
        self.cancel()
    }

    fn expect(&self, _sender: CheckedMetadata) -> Result<(), OperationError> {
        Err(OperationError::NotComplete(self.status()))
    }

    fn peer(&self) -> Option<String> {
        Some(self.peer().to_owned())
    }

    fn results(&self, seed: &str) -> Answer {
        memory::compare(self.results()?, seed)
    }

    fn metadata(&self) -> Option<String> {
        None
    }

    fn take(self: Box<Self>) -> Result<Vec<Arc<Descriptor>>, Box<dyn Held>> {
        match self.into_descriptors() {
            Ok(descriptors) => Ok(descriptors.into_iter().map(Into::into).collect()),
            Err(operation) => Err(Box::new(operation)),
        }
    }
}

/// An operation that the session has refused: why, and the memory that came back.
pub struct NotBegun {
    pub error: OperationError,
    pub memory: Vec<Arc<Descriptor>>,
}

impl<D: Into<Arc<Descriptor>>> From<Refused<D>> for NotBegun {
    fn from(refused: Refused<D>) -> Self {
        Self { error: refused.error, memory: refused.descriptors.into_iter().map(Into::into).collect() }
    }
}

/// An operation that nobody has waited for yet: a `Starting` of any kind and its `blocking`.
pub type Pending = Box<dyn FnOnce() -> Result<Box<dyn Held>, NotBegun>>;

/// Gives every kind of operation the same face.
pub fn hold(operation: impl Held + 'static) -> Box<dyn Held> {
    Box::new(operation)
}
