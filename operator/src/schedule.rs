//! Which job is planned when: changed ones in fair order, one write-out at a time for each, those that wait for a slot
//! when one gets free, and every one at the time its plan named. Pure; times are passed in.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use crate::plan::backoff;

/// A job's place in the queue: the highest priority first, then the fewest active hops, then the oldest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// `spec.priority`.
    pub priority: Reverse<i32>,
    /// Hops with an attempt under way.
    pub active: u32,
    /// Creation of the job, in seconds.
    pub created: i64,
    /// UID of the job.
    pub job: String,
}

/// How many jobs that wait for one node are looked at in one go; the rest follow when they could not use the slots.
const LOOKED_AT: usize = 16;
/// Jobs are looked at again after this long even if nothing happened, so that a clock that was set cannot strand one.
pub const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// The queue.
#[derive(Debug, Default)]
pub struct Schedule {
    dirty: HashSet<String>,
    in_flight: HashSet<String>,
    wakes: BTreeSet<(Instant, String)>,
    wake_of: HashMap<String, Instant>,
    waiting: HashMap<String, BTreeSet<Rank>>,
    waiting_of: HashMap<String, (Rank, Vec<String>)>,
    errors: HashMap<String, i32>,
}

impl Schedule {
    /// Notes jobs to be planned.
    pub fn mark(&mut self, jobs: impl IntoIterator<Item = String>) {
        self.dirty.extend(jobs);
    }

    /// Moves jobs whose time has come to those that are to be planned.
    pub fn wake(&mut self, now: Instant) {
        while let Some((at, job)) = self.wakes.first().cloned()
            && at <= now
        {
            self.wakes.pop_first();
            self.wake_of.remove(&job);
            self.dirty.insert(job);
        }
    }

    /// When the next job is to be woken.
    pub fn next_wake(&self) -> Option<Instant> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Plans to come back to the job; the last call counts.
    pub fn wake_in(&mut self, job: &str, now: Instant, pause: Option<Duration>) {
        if let Some(at) = self.wake_of.remove(job) {
            self.wakes.remove(&(at, job.to_string()));
        }
        if let Some(pause) = pause {
            let at = now + pause.min(LONGEST_SLEEP);
            self.wakes.insert((at, job.into()));
            self.wake_of.insert(job.into(), at);
        }
    }

    /// Whether a job could be planned now.
    pub fn has_ready(&self) -> bool {
        self.dirty.iter().any(|job| !self.in_flight.contains(job))
    }

    /// The changed jobs that have nothing in flight. Those in flight stay marked.
    pub fn take_ready(&mut self) -> Vec<String> {
        let ready: Vec<String> =
            self.dirty.iter().filter(|job| !self.in_flight.contains(*job)).cloned().collect();
        ready.iter().for_each(|job| {
            self.dirty.remove(job);
        });
        ready
    }

    /// The first jobs that wait for a slot of the node, but for those tried already.
    pub fn waiting_for(&self, node: &str, tried: &HashSet<String>) -> Vec<String> {
        let waiting = self.waiting.get(node).into_iter().flatten().map(|rank| &rank.job);
        waiting
            .filter(|job| !tried.contains(*job) && !self.in_flight.contains(*job))
            .take(LOOKED_AT)
            .cloned()
            .collect()
    }

    /// Notes which nodes the job waits for.
    pub fn set_waiting(&mut self, rank: Rank, nodes: Vec<String>) {
        self.forget_waiting(&rank.job);
        if nodes.is_empty() {
            return;
        }
        for node in &nodes {
            self.waiting.entry(node.clone()).or_default().insert(rank.clone());
        }
        self.waiting_of.insert(rank.job.clone(), (rank, nodes));
    }

    fn forget_waiting(&mut self, job: &str) {
        let Some((rank, nodes)) = self.waiting_of.remove(job) else { return };
        for node in nodes {
            if let Some(ranks) = self.waiting.get_mut(&node) {
                ranks.remove(&rank);
                if ranks.is_empty() {
                    self.waiting.remove(&node);
                }
            }
        }
    }

    /// The job's writes are under way.
    pub fn started(&mut self, job: &str) {
        self.in_flight.insert(job.into());
    }

    /// The job's writes have succeeded.
    pub fn succeeded(&mut self, job: &str) {
        self.in_flight.remove(job);
        self.errors.remove(job);
    }

    /// The job's writes have failed: it is planned again after a pause that doubles.
    pub fn failed(&mut self, job: &str, conflict: bool, now: Instant) {
        self.in_flight.remove(job);
        let errors = self.errors.entry(job.into()).or_default();
        *errors += 1;
        let seconds = backoff::pause(*errors, 1, job).unsigned_abs();
        // After a conflict the watch brings what we did not know within milliseconds.
        let pause = if conflict { seconds / 20 } else { seconds / 4 };
        self.wake_in(job, now, Some(pause));
    }

    /// Nothing is known of the job any more.
    pub fn forget(&mut self, job: &str) {
        self.wake_in(job, Instant::now(), None);
        self.forget_waiting(job);
        self.errors.remove(job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(active: u32, created: i64, job: &str) -> Rank {
        Rank { priority: Reverse(0), active, created, job: job.into() }
    }

    #[test]
    fn a_higher_priority_goes_before_all_else() {
        let with = |priority, rank| Rank { priority: Reverse(priority), ..rank };
        let mut ranks = [rank(0, 1, "old"), with(-1, rank(0, 0, "last")), with(5, rank(9, 9, "first"))];
        ranks.sort();
        assert_eq!(ranks.map(|rank| rank.job).join(" "), "first old last");
    }

    #[test]
    fn fewest_active_hops_go_first_then_the_oldest() {
        let mut ranks = [rank(1, 1, "a"), rank(0, 9, "b"), rank(0, 3, "d"), rank(0, 3, "c"), rank(2, 0, "e")];
        ranks.sort();
        assert_eq!(ranks.map(|rank| rank.job).join(" "), "c d b a e");
    }

    #[test]
    fn those_that_wait_for_a_node_are_found_in_order_and_once() {
        let mut schedule = Schedule::default();
        schedule.set_waiting(rank(1, 1, "old"), vec!["n".into()]);
        schedule.set_waiting(rank(0, 2, "new"), vec!["n".into(), "m".into()]);
        assert_eq!(schedule.waiting_for("n", &HashSet::new()), ["new", "old"]);
        assert_eq!(schedule.waiting_for("n", &HashSet::from(["new".to_string()])), ["old"]);
        schedule.set_waiting(rank(3, 2, "new"), vec!["n".into()]);
        assert_eq!(schedule.waiting_for("n", &HashSet::new()), ["old", "new"]);
        assert!(schedule.waiting_for("m", &HashSet::new()).is_empty());
    }

    #[test]
    fn a_job_in_flight_stays_marked_and_is_not_planned() {
        let mut schedule = Schedule::default();
        schedule.started("a");
        schedule.mark(["a".to_string(), "b".to_string()]);
        assert_eq!(schedule.take_ready(), ["b"]);
        assert!(!schedule.has_ready());
        schedule.succeeded("a");
        assert_eq!(schedule.take_ready(), ["a"]);
    }

    #[test]
    fn a_later_wake_replaces_an_earlier_one() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.wake_in("a", now, Some(Duration::from_secs(1)));
        schedule.wake_in("a", now, Some(Duration::from_secs(30)));
        schedule.wake(now + Duration::from_secs(2));
        assert!(!schedule.has_ready());
        schedule.wake(now + Duration::from_secs(31));
        assert!(schedule.has_ready());
    }
}
