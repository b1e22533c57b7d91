//! The fence: a leader that could not renew its Lease for long enough writes nothing more, before anybody else may take the
//! Lease. It looks at the clock itself, so it is right even if the task that renews stands still. No I/O.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::Moment;

/// Whether this operator may write.
#[derive(Clone, Debug)]
pub struct Fence(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    deadline: Duration,
    /// When the last successful renewal began, in milliseconds of the boot clock plus one; 0 for none.
    renewed: AtomicU64,
    /// The Lease was lost or let go.
    shut: AtomicBool,
}

impl Fence {
    /// For an operator without others: it may always write.
    pub fn open() -> Self {
        Self(None)
    }

    /// Shut until the first renewal; open for `deadline` after the begin of the last one.
    pub fn closed(deadline: Duration) -> Self {
        let (renewed, shut) = (AtomicU64::new(0), AtomicBool::new(false));
        Self(Some(Arc::new(Shared { deadline, renewed, shut })))
    }

    /// Whether a write may begin now.
    pub fn may_write(&self) -> bool {
        self.may_write_at(Moment::now())
    }

    /// Whether a write may begin then.
    pub fn may_write_at(&self, now: Moment) -> bool {
        let Some(shared) = &self.0 else { return true };
        let renewed = shared.renewed.load(Ordering::Acquire);
        if renewed == 0 || shared.shut.load(Ordering::Acquire) {
            return false;
        }
        Moment(Duration::from_millis(renewed - 1)).after(shared.deadline) > now
    }

    /// A renewal that began at `begun` has succeeded. Its begin counts: the API server may have stored it then.
    pub fn renewed(&self, begun: Moment) {
        let Some(shared) = &self.0 else { return };
        let millis = u64::try_from(begun.0.as_millis()).unwrap_or(u64::MAX - 1);
        shared.renewed.store(millis + 1, Ordering::Release);
    }

    /// The Lease was lost, or is about to be let go: nothing opens this fence again.
    pub fn shut(&self) {
        if let Some(shared) = &self.0 {
            shared.shut.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shut_at_first_open_after_a_renewal_and_shut_when_that_is_too_old() {
        let (deadline, begun) = (Duration::from_secs(10), Moment(Duration::from_secs(100)));
        let fence = Fence::closed(deadline);
        assert!(!fence.may_write_at(begun));
        fence.renewed(begun);
        assert!(fence.may_write_at(begun.after(Duration::from_millis(9_999))));
        assert!(!fence.may_write_at(begun.after(deadline)));
    }

    #[test]
    fn what_is_shut_stays_shut_and_what_has_no_lease_is_open() {
        let fence = Fence::closed(Duration::from_secs(10));
        fence.renewed(Moment::now());
        assert!(fence.may_write());
        fence.shut();
        fence.renewed(Moment::now());
        assert!(!fence.may_write());
        let alone = Fence::open();
        alone.shut();
        assert!(alone.may_write());
    }
}
