//! Waiting until the session has taken a new operation: awaited in a task, or blocked on in any thread.

use std::time::{Duration, Instant};

use super::completion::Deadline;
use super::error::{OperationError, Refused};
use super::waiting::{Place, Waiting};
use crate::session::SessionError;

/// Longest wait for the session's thread. Registering memory and loading a peer take milliseconds; only a hanging NIXL
/// takes longer.
const LONGEST: Duration = Duration::from_secs(30);

/// An operation that the session's thread is about to take, within milliseconds. An active one waits longer when NIXL
/// must first forget what it knew of the peer's memory, which is when no transfer with that peer is in flight.
///
/// Await it in a task of tokio (feature `tokio`; without the runtime's time an await that has to wait panics), or call
/// [`Starting::blocking`] in a thread. Both give up after 30 s, with `NoAnswer`. The operation begins whether or not anybody
/// waits for it here; dropping this value drops the operation.
#[must_use = "the operation is dropped with this value"]
pub struct Starting<O: Startable> {
    /// `None` once it was given out.
    state: Option<Result<O, Refused<O::Memory>>>,
    deadline: Deadline,
    place: Place,
}

/// An operation that can be started: the four of this crate.
pub trait Startable: sealed::Sealed {}

impl<O: sealed::Sealed> Startable for O {}

pub(super) mod sealed {
    use super::{OperationError, Refused, Waiting};

    /// What [`super::Starting`] needs to know; not for other crates.
    pub trait Sealed: Sized + Unpin {
        /// What holds the local memory.
        type Memory: Unpin;

        #[allow(private_interfaces)] // nobody outside can name the trait
        fn waiting(&self) -> &Waiting;
        /// Called once the session has answered.
        fn started(self) -> Result<Self, Refused<Self::Memory>>;
        /// Gives the memory back as far as that is possible.
        fn refused(self, error: OperationError) -> Refused<Self::Memory>;
    }
}

impl<O: Startable> Starting<O> {
    pub(super) fn new(operation: Result<O, Refused<O::Memory>>) -> Self {
        let deadline = Deadline::at(Instant::now() + LONGEST);
        Self { state: Some(operation), deadline, place: Place::default() }
    }

    /// Blocks this thread until the session has taken the operation.
    ///
    /// # Errors
    /// When the operation is not possible or the session cannot begin it; the descriptors come back with the error.
    pub fn blocking(mut self) -> Result<O, Refused<O::Memory>> {
        let operation = self.take()?;
        match operation.waiting().block(self.deadline.at, |state| state.is_started().then_some(())) {
            Some(()) => operation.started(),
            None => Err(operation.refused(no_answer())),
        }
    }

    fn take(&mut self) -> Result<O, Refused<O::Memory>> {
        self.leave();
        let closed = || Refused { error: SessionError::Closed.into(), descriptors: Vec::new() };
        self.state.take().unwrap_or_else(|| Err(closed()))
    }

    fn leave(&mut self) {
        if let Some(Ok(operation)) = &self.state {
            operation.waiting().leave(&mut self.place);
        }
    }
}

fn no_answer() -> OperationError {
    SessionError::NoAnswer("begin an operation").into()
}

#[cfg(feature = "tokio")]
impl<O: Startable> Future for Starting<O> {
    type Output = Result<O, Refused<O::Memory>>;

    fn poll(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        use std::task::Poll;
        let this = self.get_mut();
        if let Some(Ok(operation)) = &this.state {
            let is_started = |state: &super::state::State| state.is_started().then_some(());
            if operation.waiting().poll(&mut this.place, context, is_started).is_pending() {
                if this.deadline.poll(context).is_pending() {
                    return Poll::Pending;
                }
                let operation = this.take();
                return Poll::Ready(operation.and_then(|operation| Err(operation.refused(no_answer()))));
            }
        }
        let operation = this.take();
        Poll::Ready(operation.and_then(O::started))
    }
}

impl<O: Startable> Drop for Starting<O> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<O: Startable> std::fmt::Debug for Starting<O> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Starting").finish_non_exhaustive()
    }
}
