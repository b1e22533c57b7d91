//! Jobs for a pool of threads. They come by the chunk and go out by the share, so that a thousand small files do not cost
//! a thousand wake-ups, and yet each thread gets one when a disk makes them slow. Blocking.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(super) struct Queue<J> {
    threads: usize,
    state: Mutex<State<J>>,
    comes: Condvar,
}

#[derive(Debug)]
struct State<J> {
    jobs: VecDeque<J>,
    resting: usize,
    closed: bool,
}

impl<J> Queue<J> {
    /// For so many threads.
    pub(super) fn new(threads: usize) -> Self {
        let state = State { jobs: VecDeque::new(), resting: 0, closed: false };
        Self { threads, state: Mutex::new(state), comes: Condvar::new() }
    }

    /// Adds jobs behind those that wait. One thread is woken; it wakes the next if it leaves something.
    pub(super) fn put(&self, jobs: impl IntoIterator<Item = J>) {
        let mut state = self.lock();
        state.jobs.extend(jobs);
        self.wake_for(&state);
    }

    /// No further job comes.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.comes.notify_all();
    }

    /// A thread's share of what waits, the oldest first, and never none; `None` when nothing is left and nothing comes.
    pub(super) fn take(&self) -> Option<Vec<J>> {
        let mut state = self.lock();
        while state.jobs.is_empty() {
            if state.closed {
                return None;
            }
            state.resting += 1;
            state = self.comes.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.resting -= 1;
        }
        let share = state.jobs.len().div_ceil(self.threads);
        let taken = state.jobs.drain(..share).collect();
        self.wake_for(&state);
        Some(taken)
    }

    fn wake_for(&self, state: &State<J>) {
        if !state.jobs.is_empty() && state.resting > 0 {
            self.comes.notify_one();
        }
    }

    /// Every change is whole when the lock is let go, so a panic elsewhere leaves it good.
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_shrink_and_keep_the_order() {
        let queue = Queue::new(4);
        queue.put(0..10);
        let mut shares = Vec::new();
        while shares.iter().map(Vec::len).sum::<usize>() < 10 {
            shares.extend(queue.take());
        }
        assert_eq!(shares.iter().map(Vec::len).collect::<Vec<_>>(), [3, 2, 2, 1, 1, 1]);
        assert_eq!(shares.concat(), (0..10).collect::<Vec<_>>());
        queue.put([10]);
        queue.close();
        assert_eq!(queue.take(), Some(vec![10]), "what was put before the end is done");
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn every_thread_gets_some_while_the_others_are_at_work() {
        let queue = Queue::new(4);
        let together = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut done = 0;
                    while let Some(share) = queue.take() {
                        if done == 0 {
                            // Nobody goes on before each has something.
                            together.wait();
                        }
                        done += share.len();
                    }
                });
            }
            queue.put(0..4);
            queue.close();
        });
    }
}
