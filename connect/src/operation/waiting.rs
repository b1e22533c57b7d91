//! An operation's state under a lock that threads and tasks can wait on.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::state::State;

/// A panic of another thread under the lock leaves a whole state (each change is one call), so poisoning is passed over.
#[derive(Debug)]
pub(super) struct Waiting {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inner {
    state: State,
    tasks: Vec<Waker>,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self { inner: Mutex::new(Inner { state: State::new(), tasks: Vec::new() }), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the state.
    pub(super) fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.lock().state)
    }

    /// Changes the state and wakes whoever waits for it.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut inner = self.lock();
        let result = change(&mut inner.state);
        let tasks = std::mem::take(&mut inner.tasks);
        drop(inner);
        self.changed.notify_all();
        tasks.into_iter().for_each(Waker::wake);
        result
    }

    /// Blocks this thread until `ready` gives something; `None` when the deadline passes first.
    pub(super) fn block<R>(&self, deadline: Instant, ready: impl Fn(&State) -> Option<R>) -> Option<R> {
        let mut inner = self.lock();
        loop {
            if let Some(result) = ready(&inner.state) {
                return Some(result);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// For a task: ready when `ready` gives something, else the task is woken at the next change.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))] // there are no tasks then
    pub(super) fn poll<R>(&self, context: &Context<'_>, ready: impl Fn(&State) -> Option<R>) -> Poll<R> {
        let mut inner = self.lock();
        if let Some(result) = ready(&inner.state) {
            return Poll::Ready(result);
        }
        if !inner.tasks.iter().any(|task| task.will_wake(context.waker())) {
            inner.tasks.push(context.waker().clone());
        }
        Poll::Pending
    }
}
