//! The life of one operation as the session and its holder see it. Pure: no locks, no I/O.

use std::sync::Arc;

use super::error::OperationError;
use crate::session::{Opened, SessionError};
use crate::status::OperationStatus;

/// Whether NIXL has a hold on the operation's memory. The first change counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memory {
    InUse,
    Released,
    /// Until the process ends.
    Kept,
}

/// Only the first end counts; what comes later changes nothing but who holds the memory.
#[derive(Debug)]
pub(super) struct State {
    status: OperationStatus,
    failure: Option<OperationError>,
    /// What the session holds for the operation, once it does.
    opened: Option<Opened>,
    memory: Memory,
    /// The agent whose notification completed the operation.
    sender: Option<Arc<str>>,
    /// The one agent that may do so, if one is known.
    expected: Option<Arc<str>>,
    /// The operation was dropped before the session had answered.
    given_up: bool,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            status: OperationStatus::Uninitialized,
            failure: None,
            opened: None,
            memory: Memory::InUse,
            sender: None,
            expected: None,
            given_up: false,
        }
    }

    /// The session has taken the operation. Gives what it holds back when nobody wants the operation any more.
    pub(super) fn open(&mut self, opened: Opened, status: OperationStatus) -> Option<Opened> {
        if self.given_up {
            return Some(opened);
        }
        self.opened = Some(opened);
        if !self.status.is_terminal() {
            self.status = status;
        }
        None
    }

    /// The session has refused it; NIXL never had its memory.
    pub(super) fn refuse(&mut self, error: OperationError) {
        self.fail(error);
        self.release();
    }

    /// NIXL may have begun the transfer, and will never tell its end.
    pub(super) fn keep(&mut self, error: OperationError) {
        self.fail(error);
        if self.memory == Memory::InUse {
            self.memory = Memory::Kept;
        }
    }

    /// The operation fails, unless it has ended.
    pub(super) fn fail(&mut self, error: OperationError) {
        if !self.status.is_terminal() {
            self.status = OperationStatus::Errored;
            self.failure = Some(error);
        }
    }

    /// Its bytes are where they belong, and NIXL has no hold on its memory.
    pub(super) fn complete(&mut self) {
        self.release();
        if !self.status.is_terminal() {
            self.status = OperationStatus::Complete;
        }
    }

    /// The notification with the operation's key came from this agent.
    pub(super) fn notified(&mut self, peer: &str) {
        if self.status.is_terminal() {
            return;
        }
        self.sender = Some(peer.into());
        if let Err(error) = self.check_sender() {
            return self.fail(error);
        }
        self.complete();
    }

    /// From now on only this agent may complete it.
    pub(super) fn expect(&mut self, peer: Arc<str>) -> Result<(), OperationError> {
        self.expected = Some(peer);
        self.check_sender()
    }

    fn check_sender(&self) -> Result<(), OperationError> {
        match (&self.expected, &self.sender) {
            (Some(expected), Some(found)) if expected != found => {
                Err(OperationError::Sender { expected: expected.to_string(), found: found.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// # Errors
    /// `Ended` for an operation that has ended; its status is unchanged.
    pub(super) fn cancel(&mut self) -> Result<(), OperationError> {
        if self.status.is_terminal() {
            return Err(OperationError::Ended(self.status));
        }
        self.status = OperationStatus::Cancelled;
        Ok(())
    }

    /// NIXL has ended the transfer, well or not.
    pub(super) fn release(&mut self) {
        if self.memory == Memory::InUse {
            self.memory = Memory::Released;
        }
    }

    /// The holder drops it: gives what the session must be told to close. Without an answer of the session yet, the
    /// answer will be taken back by [`State::open`].
    pub(super) fn give_up(&mut self) -> Option<Opened> {
        self.given_up = true;
        self.opened.take()
    }

    pub(super) fn status(&self) -> OperationStatus {
        self.status
    }

    pub(super) fn expected(&self) -> Option<&Arc<str>> {
        self.expected.as_ref()
    }

    pub(super) fn sender(&self) -> Option<&Arc<str>> {
        self.sender.as_ref()
    }

    /// Whether NIXL has no hold on the memory.
    pub(super) fn is_released(&self) -> bool {
        self.memory == Memory::Released
    }

    /// What became of the memory, or `None` while NIXL may give it back.
    pub(super) fn release_outcome(&self) -> Option<Result<(), OperationError>> {
        match self.memory {
            Memory::InUse => None,
            Memory::Released => Some(Ok(())),
            // It has failed, or was cancelled before.
            Memory::Kept => self.outcome(),
        }
    }

    /// Whether the holder has dropped it.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// Whether nothing can happen to it any more. What has failed may still be told that NIXL is done with the memory; of
    /// what is passive a peer may still make use.
    pub(super) fn is_over(&self) -> bool {
        self.status.is_terminal() && self.memory != Memory::InUse
    }

    /// Whether the session would not begin it.
    pub(super) fn was_refused(&self) -> bool {
        self.opened.is_none() && self.status == OperationStatus::Errored
    }

    /// Whether the session has answered, in any way.
    pub(super) fn is_started(&self) -> bool {
        self.opened.is_some() || self.status.is_terminal()
    }

    /// How it ended, or `None` while it goes on.
    pub(super) fn outcome(&self) -> Option<Result<(), OperationError>> {
        match self.status {
            OperationStatus::Complete => Some(Ok(())),
            OperationStatus::Cancelled => Some(Err(OperationError::Cancelled)),
            OperationStatus::Errored => {
                Some(Err(self.failure.clone().unwrap_or(OperationError::Session(SessionError::Closed))))
            }
            OperationStatus::Uninitialized | OperationStatus::Initialized | OperationStatus::InProgress => {
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
