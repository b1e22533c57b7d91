//! Who is woken by a change, and that nobody is kept who does not wait any more.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use std::time::Duration;

use super::super::completion::Completion;
use super::super::error::{OperationError, Refused};
use super::super::starting::{Starting, sealed};
use super::*;

/// A task: counts how often it is woken, and is kept by whoever may wake it.
#[derive(Default)]
struct FakeTask(AtomicUsize);

impl Wake for FakeTask {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl FakeTask {
    /// Polls in this task.
    fn poll<F: Future + Unpin>(self: &Arc<Self>, future: &mut F) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }

    fn woken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn is_kept(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1
    }
}

struct FakeOperation(Arc<Waiting>);

impl sealed::Sealed for FakeOperation {
    type Memory = ();

    fn waiting(&self) -> &Waiting {
        &self.0
    }

    fn started(self) -> Result<Self, Refused<()>> {
        Ok(self)
    }

    fn refused(self, error: OperationError) -> Refused<()> {
        Refused { error, descriptors: Vec::new() }
    }
}

/// With the runtime's time, which an await that has to wait needs.
fn in_runtime(test: impl FnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let entered = runtime.enter();
    test();
    drop(entered);
}

fn until_the_end(waiting: &Waiting) -> Completion<'_> {
    Completion::new(waiting, "the end", State::outcome, Instant::now() + Duration::from_secs(600))
}

#[test]
fn a_wait_that_is_dropped_keeps_nothing_of_its_task() {
    in_runtime(|| {
        let (waiting, task, other) =
            (Waiting::new(), Arc::new(FakeTask::default()), Arc::new(FakeTask::default()));
        // Two waits of one task are two: the end of one leaves the other.
        let (mut first, mut second, mut third) =
            (until_the_end(&waiting), until_the_end(&waiting), until_the_end(&waiting));
        assert!(task.poll(&mut first).is_pending() && task.poll(&mut second).is_pending());
        assert!(other.poll(&mut third).is_pending());
        drop(third);
        assert!(!other.is_kept());
        drop(first);
        waiting.change(|state| state.cancel()).unwrap();
        assert_eq!((task.woken(), other.woken()), (1, 0));
        assert!(task.poll(&mut second).is_ready());
        drop(second);
        assert!(!task.is_kept());
    });
}

#[test]
fn a_wait_that_moves_to_another_task_wakes_that_one() {
    in_runtime(|| {
        let (waiting, task, other) =
            (Waiting::new(), Arc::new(FakeTask::default()), Arc::new(FakeTask::default()));
        let mut wait = until_the_end(&waiting);
        assert!(task.poll(&mut wait).is_pending() && other.poll(&mut wait).is_pending());
        waiting.change(|state| state.cancel()).unwrap();
        assert_eq!((task.woken(), other.woken()), (0, 1));
    });
}

#[test]
fn a_start_that_is_dropped_keeps_nothing_of_its_task() {
    in_runtime(|| {
        let (waiting, task) = (Arc::new(Waiting::new()), Arc::new(FakeTask::default()));
        let mut starting = Starting::new(Ok(FakeOperation(Arc::clone(&waiting))));
        assert!(task.poll(&mut starting).is_pending() && task.is_kept());
        drop(starting);
        // The session goes on with the operation's state.
        waiting.change(|state| state.cancel()).unwrap();
        assert_eq!((task.woken(), task.is_kept()), (0, false));
    });
}
