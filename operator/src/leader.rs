//! Which of several operators writes: the one that holds the Lease `nixl-transfer-operator`. `decide` says what follows
//! from what was seen of it [pure], `fence` whether a write may begin, `elect` does the requests. A process leads once:
//! when it has lost the Lease it ends, and whoever started it starts it again.

pub mod decide;
pub mod elect;
pub mod fence;

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Name of the Lease, in the namespace of the agents' Leases, which are named as their nodes.
pub const LEASE: &str = "nixl-transfer-operator";

/// A point of the boot clock, which counts the time in which the machine was suspended too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Duration);

impl Moment {
    /// The present one.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Self(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
    }

    /// How long it is from here to `later`; nothing when that has passed.
    pub fn until(self, later: Self) -> Duration {
        later.0.saturating_sub(self.0)
    }

    /// This much later.
    pub fn after(self, pause: Duration) -> Self {
        Self(self.0 + pause)
    }
}

/// The four times, in the proportions that Kubernetes' own controllers use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A Lease that was not seen to change for so long may be taken: 15 s.
    pub lease: Duration,
    /// One that could not renew for so long writes nothing more: 10 s. What is left of `lease` then is for requests that
    /// are on their way, and for clocks that do not go alike.
    pub deadline: Duration,
    /// The leader renews so often: 5 s.
    pub renew: Duration,
    /// The others look, and a failed renewal is tried again, after so long: 2 s.
    pub retry: Duration,
}

impl Timing {
    /// Those for a Lease of this duration.
    pub fn of(lease: Duration) -> Self {
        Self { lease, deadline: lease * 2 / 3, renew: lease / 3, retry: lease * 2 / 15 }
    }
}
