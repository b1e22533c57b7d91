//! The first failure of a hop's helpers: those that store, answer and sync beside its thread. It ends whatever that thread
//! waits for.

use std::sync::{Mutex, PoisonError, mpsc};

use nixl_connect::AbortHandle;

use super::hop::HopCommand;
use crate::protocol::Failure;

/// Where helpers leave their failure.
pub(super) struct Trouble {
    first: Mutex<Option<Failure>>,
    /// Wakes the hop when it waits in the stream.
    stream: AbortHandle,
    /// Wakes it when it waits for a command.
    hop: mpsc::Sender<HopCommand>,
}

impl Trouble {
    pub(super) fn new(stream: AbortHandle, hop: mpsc::Sender<HopCommand>) -> Self {
        Self { first: Mutex::new(None), stream, hop }
    }

    /// Ends the hop with this failure, unless another one came first.
    pub(super) fn fail(&self, failure: Failure) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = Some(failure.clone());
            drop(first);
            // Both, since the hop may wait in either place; it may also be gone.
            let _ = self.hop.send(HopCommand::HelperFailed(failure));
            self.stream.abort();
        }
    }

    /// The failure, if there is one.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
