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
    tasks: Vec<(u64, Waker)>,
    last_place: u64,
}

/// The place of one wait among the tasks that wait; none before its first poll. Whoever has it gives it back with
/// [`Waiting::leave`].
#[derive(Debug, Default)]
pub(super) struct Place(Option<u64>);

impl Waiting {
    pub(super) fn new() -> Self {
        let inner = Inner { state: State::new(), tasks: Vec::new(), last_place: 0 };
        Self { inner: Mutex::new(inner), changed: Condvar::new() }
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
        tasks.into_iter().for_each(|(_, task)| task.wake());
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
    pub(super) fn poll<R>(
        &self,
        place: &mut Place,
        context: &Context<'_>,
        ready: impl Fn(&State) -> Option<R>,
    ) -> Poll<R> {
        let mut inner = self.lock();
        if let Some(result) = ready(&inner.state) {
            return Poll::Ready(result);
        }
        let number = *place.0.get_or_insert_with(|| {
            inner.last_place += 1;
            inner.last_place
        });
        let known = inner.tasks.iter().position(|(known, _)| *known == number);
        let former = known.map(|at| inner.tasks.swap_remove(at));
        inner.tasks.push((number, context.waker().clone()));
        // What a waker's drop does is the runtime's affair, and may be another wait's end.
        drop(inner);
        drop(former);
        Poll::Pending
    }

    /// The wait is over: its task is not woken any more, and not kept.
    pub(super) fn leave(&self, place: &mut Place) {
        let Some(number) = place.0.take() else { return };
        let mut inner = self.lock();
        let known = inner.tasks.iter().position(|(known, _)| *known == number);
        let left = known.map(|at| inner.tasks.swap_remove(at));
        drop(inner);
        drop(left);
    }
}

#[cfg(all(test, feature = "tokio"))]
mod tests;
