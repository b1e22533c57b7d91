//! What a receiver tells its sender beside the credits: short texts of its user, in order. They share the stream's life and
//! its failure. Waits; the bytes move on the session's thread.

use std::sync::Arc;
use std::time::Instant;

use super::StreamError;
use super::receiver;
use super::sending::Sending;

/// Longest text of one answer, in bytes. It travels in a notification.
pub const MAX_ANSWER: usize = 4096;

/// The receiver's end, for any thread.
#[derive(Debug, Clone)]
pub struct AnswerSender(pub(super) Arc<receiver::Shared>);

impl AnswerSender {
    /// Sends a text of 1 to [`MAX_ANSWER`] bytes. Does not wait.
    ///
    /// # Errors
    /// `Misuse` for another length, and before the receiver is connected; else the stream's failure.
    pub fn send(&self, text: &[u8]) -> Result<(), StreamError> {
        if text.is_empty() || text.len() > MAX_ANSWER {
            return Err(StreamError::Misuse("an answer is of 1 to 4096 bytes"));
        }
        self.0.answer(text)
    }
}

/// The sender's end, for any thread.
#[derive(Debug, Clone)]
pub struct AnswerReceiver(pub(super) Arc<Sending>);

impl AnswerReceiver {
    /// The next text; waits for it until `deadline`.
    ///
    /// # Errors
    /// `DeadlineExceeded` when none came in time (it may be called again); else the stream's failure.
    pub fn next(&self, deadline: Instant) -> Result<Vec<u8>, StreamError> {
        self.0.waiting.wait(deadline, "the receiver's answer", |state| state.take_answer())
    }
}
