//! What the target has of each file, asked for in the manifest's order. Waits; every answer that comes shows that the target
//! is at work and starts the patience again.

use std::time::{Duration, Instant};

use nixl_connect::{AnswerReceiver, StreamError};

use crate::wire::{AnswerBook, Has};

/// The answers of one hop.
#[derive(Debug)]
pub(in crate::worker) struct Answers {
    receiver: AnswerReceiver,
    book: AnswerBook,
    digest_length: usize,
}

impl Answers {
    pub(in crate::worker) fn new(receiver: AnswerReceiver, digest_length: usize) -> Self {
        Self { receiver, book: AnswerBook::default(), digest_length }
    }

    /// What the target has of the file, if it has said so already. Answers do not pile up: all that came are read.
    pub(in crate::worker) fn at_hand(&mut self, index: u32) -> Result<Option<Has>, StreamError> {
        loop {
            match self.receiver.next(Instant::now()) {
                Ok(text) => self.take(&text)?,
                Err(StreamError::DeadlineExceeded(_)) => return Ok(self.book.of(index)),
                Err(error) => return Err(error),
            }
        }
    }

    /// What the target has of the file. `heard` is called for every answer that is waited for. A file is asked for once.
    ///
    /// # Errors
    /// `DeadlineExceeded` when no answer came for so long, `Malformed` for one that no target gives, else the stream's own.
    pub(in crate::worker) fn of(
        &mut self,
        index: u32,
        patience: Duration,
        mut heard: impl FnMut(),
    ) -> Result<Has, StreamError> {
        loop {
            if let Some(has) = self.book.of(index) {
                return Ok(has);
            }
            let text = self.receiver.next(Instant::now() + patience)?;
            self.take(&text)?;
            heard();
        }
    }

    fn take(&mut self, text: &[u8]) -> Result<(), StreamError> {
        let taken = self.book.take(text, self.digest_length);
        taken.map_err(|error| StreamError::Malformed(format!("an answer: {error}")))
    }
}
