//! Waiting for an operation: awaited in a task, or blocked on in any thread; never without a deadline.

use std::time::Instant;

use super::error::OperationError;
use super::state::State;
use super::waiting::{Place, Waiting};

type Ready = fn(&State) -> Option<Result<(), OperationError>>;

/// A wait for something that an operation does. Await it in a task of tokio (feature `tokio`; without the runtime's time an
/// await that has to wait panics), or call [`Completion::blocking`] in a thread. Several may wait for one operation.
/// Dropping it ends the wait and leaves the operation as it is.
///
/// ```no_run
/// use std::time::{Duration, Instant};
///
/// use nixl_connect::{OperationError, ReadableOperation};
///
/// # #[cfg(feature = "tokio")]
/// async fn served(operation: &ReadableOperation) -> Result<(), OperationError> {
///     operation.wait_for_completion(Instant::now() + Duration::from_secs(60)).await
/// }
/// ```
#[must_use = "a wait does nothing until it is awaited or blocked on"]
pub struct Completion<'a> {
    waiting: &'a Waiting,
    ready: Ready,
    what: &'static str,
    deadline: Deadline,
    place: Place,
}

impl<'a> Completion<'a> {
    pub(super) fn new(waiting: &'a Waiting, what: &'static str, ready: Ready, deadline: Instant) -> Self {
        Self { waiting, ready, what, deadline: Deadline::at(deadline), place: Place::default() }
    }

    /// Blocks this thread until it happened or the deadline passes.
    ///
    /// # Errors
    /// The operation's failure, or [`OperationError::DeadlineExceeded`], after which it can be waited for again.
    pub fn blocking(self) -> Result<(), OperationError> {
        let result = self.waiting.block(self.deadline.at, self.ready);
        result.unwrap_or(Err(OperationError::DeadlineExceeded(self.what)))
    }
}

#[cfg(feature = "tokio")]
impl Future for Completion<'_> {
    type Output = Result<(), OperationError>;

    fn poll(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        use std::task::Poll;
        let this = self.get_mut();
        if let Poll::Ready(result) = this.waiting.poll(&mut this.place, context, this.ready) {
            return Poll::Ready(result);
        }
        match this.deadline.poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(OperationError::DeadlineExceeded(this.what))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Completion<'_> {
    fn drop(&mut self) {
        self.waiting.leave(&mut self.place);
    }
}

impl std::fmt::Debug for Completion<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Completion").field("what", &self.what).finish_non_exhaustive()
    }
}

/// A point in time that a task can wait for; its timer exists only once it is polled.
pub(super) struct Deadline {
    pub(super) at: Instant,
    #[cfg(feature = "tokio")]
    timer: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
}

impl Deadline {
    pub(super) fn at(at: Instant) -> Self {
        Self {
            at,
            #[cfg(feature = "tokio")]
            timer: None,
        }
    }

    /// Ready when the time has come.
    #[cfg(feature = "tokio")]
    pub(super) fn poll(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        let at = self.at;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
        timer.as_mut().poll(context)
    }
}
