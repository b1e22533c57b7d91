//! The state of something that the session's thread changes, under a lock that its callers can wait on until a deadline, and
//! the handle that ends such a wait.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// State with a first fault.
pub(crate) trait Faulty: Send {
    /// What can go wrong with it.
    type Fault: Fault;
    /// Keeps the fault unless there is one already.
    fn fail(&mut self, fault: Self::Fault);
    /// The fault, if any.
    fn fault(&self) -> Option<&Self::Fault>;
}

/// An error that has words for what every wait can end with.
pub(crate) trait Fault: Clone {
    /// This did not happen before the deadline.
    fn expired(what: &'static str) -> Self;
    /// It was ended on this side.
    fn closed() -> Self;
}

/// A lock with waiters. A panic of another thread under the lock leaves states that are whole (each change is one
/// assignment), so poisoning is passed over.
#[derive(Debug, Default)]
pub(crate) struct Waiting<T> {
    state: Mutex<T>,
    changed: Condvar,
}

impl<T: Faulty> Waiting<T> {
    pub(crate) fn new(state: T) -> Self {
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called after a change that a waiter may wait for.
    pub(crate) fn wake(&self) {
        self.changed.notify_all();
    }

    pub(crate) fn fail(&self, fault: T::Fault) {
        self.lock().fail(fault);
        self.wake();
    }

    /// Waits until `ready` gives something, the state has a fault, or the deadline passes.
    pub(crate) fn wait<R>(
        &self,
        deadline: Instant,
        what: &'static str,
        mut ready: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<R, T::Fault> {
        let mut state = self.lock();
        loop {
            // What is there is given out first: the state decides whether its fault forbids that.
            if let Some(result) = ready(&mut state) {
                return Ok(result);
            }
            if let Some(fault) = state.fault() {
                return Err(fault.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(T::Fault::expired(what));
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Ends a stream, or the use of a [`RemoteMemory`](crate::RemoteMemory), from another thread: whoever waits in it gets the
/// error `Closed` at once, and so does every later call. Bytes that are in flight stay so; only the end of the process stops
/// them.
#[derive(Clone)]
pub struct AbortHandle(Arc<dyn Fn() + Send + Sync>);

impl AbortHandle {
    pub(crate) fn of<T: Faulty + 'static>(waiting: &Arc<Waiting<T>>) -> Self {
        let waiting = Arc::downgrade(waiting);
        Self(Arc::new(move || {
            if let Some(waiting) = waiting.upgrade() {
                waiting.fail(T::Fault::closed());
            }
        }))
    }

    /// Ends it; what has failed or ended already stays as it is.
    pub fn abort(&self) {
        (self.0)();
    }
}

impl std::fmt::Debug for AbortHandle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("AbortHandle")
    }
}
