//! The fence: an agent that could not renew its Lease for long enough stops committing before anyone takes it as gone. By
//! the clock that goes on while the machine is suspended, so that a node that slept knows that it did. No I/O.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use nixl_transfer_crds::names::FENCE_SECONDS;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

const FENCE_AFTER: Duration = Duration::from_secs(FENCE_SECONDS as u64);

/// A point of the boot clock, which counts suspended time too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// The present one.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Self(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
    }
}

/// Whether this agent may still change destinations.
#[derive(Clone, Debug)]
pub struct Fence {
    shared: Arc<Shared>,
    changes: watch::Receiver<bool>,
}

#[derive(Debug)]
struct Shared {
    /// When the last successful renewal began, in milliseconds of the boot clock plus one; 0 for none.
    renewed: AtomicU64,
    /// Another agent holds the Lease.
    lost: AtomicBool,
    tell: watch::Sender<bool>,
    /// How often it fell; a fall that was over before anyone looked still counts.
    falls: watch::Sender<u64>,
}

impl Fence {
    /// Fenced until the first renewal.
    pub fn new() -> Self {
        let (tell, changes) = watch::channel(true);
        let falls = watch::Sender::new(0);
        let shared = Shared { renewed: AtomicU64::new(0), lost: AtomicBool::new(false), tell, falls };
        Self { shared: Arc::new(shared), changes }
    }

    /// Whether a commit may begin now. Looks at the clock, so it is right even if the task that renews stands still.
    pub fn may_commit(&self) -> bool {
        self.may_commit_at(Moment::now())
    }

    /// True while fenced.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.changes.clone()
    }

    /// Resolves when the agent is fenced, or was since this was called, be it for a moment.
    pub fn fallen(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut falls = self.shared.falls.subscribe();
        let fallen = !self.may_commit();
        async move {
            if !fallen {
                // An error means that the fence is gone, and with it the right to commit.
                let _ = falls.changed().await;
            }
        }
    }

    fn may_commit_at(&self, now: Moment) -> bool {
        let renewed = self.shared.renewed.load(Ordering::Acquire);
        if renewed == 0 || self.shared.lost.load(Ordering::Acquire) {
            return false;
        }
        now.0.saturating_sub(Duration::from_millis(renewed - 1)) < FENCE_AFTER
    }

    /// A renewal that began at `begun` has succeeded. Its begin counts: the API server may have stored it then.
    pub(super) fn renewed(&self, begun: Moment) {
        let millis = begun.0.as_millis();
        self.shared.renewed.store(u64::try_from(millis).unwrap_or(u64::MAX - 1) + 1, Ordering::Release);
        self.update(Moment::now());
    }

    /// Another agent has taken the Lease: nothing makes this one whole again.
    pub(super) fn lost(&self) {
        self.shared.lost.store(true, Ordering::Release);
        self.update(Moment::now());
    }

    pub(super) fn update(&self, now: Moment) {
        let fenced = !self.may_commit_at(now);
        let turned = self.shared.tell.send_if_modified(|told| std::mem::replace(told, fenced) != fenced);
        if turned && fenced {
            self.shared.falls.send_modify(|falls| *falls += 1);
        }
    }

    /// How long until it will be fenced if nothing is renewed.
    pub fn left(&self) -> Duration {
        let renewed = self.shared.renewed.load(Ordering::Acquire).saturating_sub(1);
        (Duration::from_millis(renewed) + FENCE_AFTER).saturating_sub(Moment::now().0)
    }
}

impl Default for Fence {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fenced_at_first_open_after_a_renewal_and_fenced_when_it_is_too_old() {
        let fence = Fence::new();
        let begun = Moment::now();
        assert!(!fence.may_commit() && *fence.changes().borrow());
        fence.renewed(begun);
        assert!(fence.may_commit() && !*fence.changes().borrow());
        assert!(fence.may_commit_at(Moment(begun.0 + FENCE_AFTER - Duration::from_secs(1))));
        assert!(!fence.may_commit_at(Moment(begun.0 + FENCE_AFTER)));
        fence.update(Moment(begun.0 + FENCE_AFTER));
        assert!(*fence.changes().borrow(), "told even if nobody asks");
    }

    #[test]
    fn a_lost_lease_is_never_won_back() {
        let fence = Fence::new();
        fence.renewed(Moment::now());
        fence.lost();
        fence.renewed(Moment::now());
        assert!(!fence.may_commit() && *fence.changes().borrow());
    }

    #[tokio::test]
    async fn a_fall_that_is_over_is_not_missed() {
        let fence = Fence::new();
        fence.renewed(Moment::now());
        let fallen = fence.fallen();
        // A machine that slept: fenced, and renewed in the same turn.
        fence.update(Moment(Moment::now().0 + FENCE_AFTER));
        fence.renewed(Moment::now());
        assert!(fence.may_commit());
        tokio::time::timeout(Duration::from_secs(5), fallen).await.expect("the fall was missed");
        assert!(tokio::time::timeout(Duration::from_millis(20), fence.fallen()).await.is_err());
    }
}
