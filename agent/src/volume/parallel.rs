//! Work on many files by several threads, where a file system makes each file wait. Blocking: it returns when every thread
//! has ended, so nothing goes on behind whoever asked.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{Builder, ScopedJoinHandle, scope};
use std::time::{Duration, Instant};

/// Threads at work at once for one caller, itself one of them. They wait more than they compute; beyond this a server has
/// enough to do, and on a local disk they only meet in the locks of the directories.
const MOST: usize = 8;

/// The caller is alone for so long: on a local file system it is through with a message's files by then, and a thread would
/// cost more than it brings.
const ALONE: Duration = Duration::from_millis(2);

/// Then another thread is started for each stretch of this length that the rest would take.
const WORTH_A_THREAD: Duration = Duration::from_millis(4);

/// Does `work` for each item, in parallel where that pays. Gives the results in the order of the items. After a failure no
/// further item is begun: then the results are those of the first items only, among them the first failure that there is,
/// whichever thread was the faster.
pub(super) fn each<T, R, E>(items: &[T], work: impl Fn(&T) -> Result<R, E> + Sync) -> Vec<Result<R, E>>
where
    T: Sync,
    R: Send,
    E: Send,
{
    let began = Instant::now();
    each_with(items, |done, left| helpers(began.elapsed(), done, left), work)
}

/// How many further threads are worth it, when the calling one has done so many items in that time.
fn helpers(elapsed: Duration, done: usize, left: usize) -> usize {
    if elapsed < ALONE {
        return 0;
    }
    let rest = elapsed.as_nanos().saturating_mul(left as u128) / (done.max(1) as u128);
    usize::try_from(rest / WORTH_A_THREAD.as_nanos()).unwrap_or(MOST).min(MOST - 1)
}

/// `helpers` is asked by the calling thread after each of its items.
fn each_with<T, R, E>(
    items: &[T],
    helpers: impl Fn(usize, usize) -> usize,
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Vec<Result<R, E>>
where
    T: Sync,
    R: Send,
    E: Send,
{
    let queue = Queue { next: AtomicUsize::new(0), failed: AtomicBool::new(false) };
    let one = || {
        let (at, item) = queue.take(items)?;
        let result = work(item);
        queue.failed.fetch_or(result.is_err(), Ordering::Relaxed);
        Some((at, result))
    };
    let mut results = scope(|threads| {
        let mut own = Vec::new();
        let mut started: Vec<ScopedJoinHandle<'_, Vec<_>>> = Vec::new();
        while let Some(result) = one() {
            own.push(result);
            while started.len() < helpers(own.len(), queue.left(items)) {
                let helper = Builder::new().name("files".into());
                match helper.spawn_scoped(threads, || std::iter::from_fn(one).collect()) {
                    Ok(helper) => started.push(helper),
                    // The node has no more threads to give: it goes on with those that there are.
                    Err(_) => break,
                }
            }
        }
        for helper in started {
            match helper.join() {
                Ok(results) => own.extend(results),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        own
    });
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Items are taken one after the other, so those that were begun are always the first ones.
struct Queue {
    next: AtomicUsize,
    failed: AtomicBool,
}

impl Queue {
    fn take<'a, T>(&self, items: &'a [T]) -> Option<(usize, &'a T)> {
        if self.failed.load(Ordering::Relaxed) {
            return None;
        }
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        Some((at, items.get(at)?))
    }

    fn left<T>(&self, items: &[T]) -> usize {
        items.len().saturating_sub(self.next.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::{Barrier, Condvar, Mutex};
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    /// How many are at work, now and at most.
    #[derive(Default)]
    struct Crowd {
        now: Mutex<(usize, usize)>,
        changed: Condvar,
    }

    impl Crowd {
        /// Waits until so many were at work at once.
        fn join(&self, expected: usize) {
            let mut now = self.now.lock().unwrap();
            now.0 += 1;
            now.1 = now.1.max(now.0);
            self.changed.notify_all();
            let (mut now, late) =
                self.changed.wait_timeout_while(now, LONG, |(_, most)| *most < expected).unwrap();
            now.0 -= 1;
            assert!(!late.timed_out(), "only {} at work at once", now.1);
        }
    }

    #[test]
    fn a_thread_is_started_for_each_stretch_that_it_saves() {
        let micros = Duration::from_micros;
        for (elapsed, done, left, expected) in [
            (micros(1_280), 100, 28, 0), // tmpfs
            (micros(1_999), 1, 127, 0),  // the first may be slow for reasons of its own
            (micros(2_100), 7, 121, 7),  // a server that takes 0.3 ms
            (micros(2_000), 20, 39, 0),
            (micros(2_000), 20, 40, 1),
            (micros(10_000), 1, 15, 7),
            (Duration::MAX, 1, usize::MAX, 7),
            (Duration::MAX, 1, 0, 0),
        ] {
            assert_eq!(helpers(elapsed, done, left), expected, "{elapsed:?} {done} {left}");
        }
    }

    #[test]
    fn all_threads_work_at_once_and_never_more() {
        let (crowd, alone) = (Crowd::default(), Mutex::new(HashSet::new()));
        let items: Vec<usize> = (0..200).collect();
        let results = each_with(
            &items,
            |_, _| MOST - 1,
            |at| {
                // The first is what the others are started after.
                if *at > 0 {
                    crowd.join(MOST);
                }
                alone.lock().unwrap().insert(thread::current().id());
                Ok::<_, ()>(*at)
            },
        );
        assert_eq!(results, items.into_iter().map(Ok).collect::<Vec<_>>());
        assert_eq!((crowd.now.lock().unwrap().1, alone.lock().unwrap().len()), (MOST, MOST));
    }

    #[test]
    fn what_is_quick_is_done_by_the_caller_alone() {
        let here = thread::current().id();
        let results = each(&[1, 2, 3], |item| Ok::<_, ()>((*item, thread::current().id())));
        assert_eq!(results, [Ok((1, here)), Ok((2, here)), Ok((3, here))]);
        assert_eq!(each(&[] as &[u8], |_| Ok::<_, ()>(())), []);
    }

    /// The helper's only item is the first or second of many and ends last.
    #[test]
    fn results_come_in_the_order_of_the_items_whoever_ends_first() {
        let (caller, items) = (thread::current().id(), (0..100).collect::<Vec<usize>>());
        // Whether the helper has begun, and how many the caller has done.
        let (state, changed) = (Mutex::new((false, 0)), Condvar::new());
        let results = each_with(
            &items,
            |_, _| 1,
            |at| {
                let mut now = state.lock().unwrap();
                let wait = |now, until: fn(&(bool, usize)) -> bool| {
                    let (now, late) = changed.wait_timeout_while(now, LONG, |now| !until(now)).unwrap();
                    assert!(!late.timed_out());
                    now
                };
                if thread::current().id() != caller {
                    now.0 = true;
                    changed.notify_all();
                    drop(wait(now, |now| now.1 == 99));
                } else if *at > 0 {
                    now = wait(now, |now| now.0);
                    now.1 += 1;
                    changed.notify_all();
                } else {
                    now.1 += 1;
                }
                Ok::<_, ()>(*at)
            },
        );
        assert_eq!(results, items.into_iter().map(Ok).collect::<Vec<_>>());
    }

    /// Two fail, the later one first.
    #[test]
    fn the_first_failure_in_order_is_among_the_results_and_nothing_is_begun_after_it() {
        let (late_failed, begun) = ((Mutex::new(false), Condvar::new()), AtomicUsize::new(0));
        let items: Vec<usize> = (0..1_000).collect();
        let results = each_with(
            &items,
            |_, _| 1,
            |at| {
                begun.fetch_add(1, Ordering::Relaxed);
                let mut failed = late_failed.0.lock().unwrap();
                match at {
                    1 => {
                        let (_failed, late) =
                            late_failed.1.wait_timeout_while(failed, LONG, |failed| !*failed).unwrap();
                        assert!(!late.timed_out());
                        Err(*at)
                    }
                    2 => {
                        *failed = true;
                        late_failed.1.notify_all();
                        Err(*at)
                    }
                    _ => Ok(*at),
                }
            },
        );
        assert_eq!(results, [Ok(0), Err(1), Err(2)]);
        assert_eq!(begun.into_inner(), 3);
    }

    #[test]
    #[should_panic(expected = "of a helper")]
    fn a_panic_is_the_callers() {
        let (caller, both) = (thread::current().id(), Barrier::new(2));
        each_with(
            &[0, 1, 2],
            |_, _| 1,
            |at| {
                if *at > 0 {
                    both.wait();
                    assert_eq!(thread::current().id(), caller, "of a helper");
                }
                Ok::<_, ()>(())
            },
        );
    }
}
