//! What follows from what was seen of the Lease. Pure: the time is an argument, and times that stand in the Lease are for
//! people only, since they come from other machines' clocks.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};

use super::{Moment, Timing};

/// Whatever duration stands in a Lease, it can be taken after this long: nothing waits for ever.
const LONGEST: Duration = Duration::from_secs(60);

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Read the Lease: what is known of it may be old.
    Look,
    /// There is none: make it.
    Create,
    /// Take it, if it still has this version; so often has it changed hands then.
    Acquire {
        /// Its version.
        version: String,
        /// For `leaseTransitions`.
        transitions: i32,
    },
    /// It is ours: renew it, if it still has this version.
    Renew {
        /// Its version.
        version: String,
    },
    /// Another one holds it, and does not lose it before this moment.
    Wait(Moment),
    /// We led and must not any more.
    Lost(Loss),
}

/// Why one that led does not any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// No renewal has succeeded for so long.
    Late(Duration),
    /// Somebody else holds it, or took our name out of it.
    Taken(String),
    /// It was deleted.
    Deleted,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Late(since) => {
                write!(formatter, "it could not be renewed for {:.1} s", since.as_secs_f64())
            }
            Self::Taken(holder) if holder.is_empty() => write!(formatter, "somebody cleared its holder"),
            Self::Taken(holder) => write!(formatter, "{holder} holds it now"),
            Self::Deleted => write!(formatter, "it was deleted"),
        }
    }
}

#[derive(Clone, Debug)]
enum Seen {
    Nothing,
    Absent,
    /// The version may change without the rest (a label): only a change of the rest is a sign of the holder's life.
    Lease {
        version: String,
        spec: LeaseSpec,
        since: Moment,
    },
}

/// One operator's part in the election.
#[derive(Clone, Debug)]
pub struct Election {
    identity: String,
    timing: Timing,
    seen: Seen,
    /// Whether what was seen must be seen again before something is decided about it.
    stale: bool,
    /// Begin of the last renewal that succeeded.
    renewed: Option<Moment>,
}

impl Election {
    /// One that has seen nothing yet. No other operator, at no time, may have the same identity.
    pub fn new(identity: String, timing: Timing) -> Self {
        Self { identity, timing, seen: Seen::Nothing, stale: true, renewed: None }
    }

    /// Whether the Lease was ours at the last look.
    pub fn leads(&self) -> bool {
        self.renewed.is_some()
    }

    /// Who holds the Lease, as far as is known.
    pub fn holder(&self) -> &str {
        match &self.seen {
            Seen::Lease { spec, .. } => spec.holder_identity.as_deref().unwrap_or_default(),
            Seen::Nothing | Seen::Absent => "",
        }
    }

    /// Takes in what the API server gave at `now`, after it has answered: the holder's change is older than that.
    pub fn saw(&mut self, lease: Option<Lease>, now: Moment) {
        self.stale = false;
        let Some(lease) = lease else {
            self.seen = Seen::Absent;
            return;
        };
        let version = lease.metadata.resource_version.unwrap_or_default();
        let spec = lease.spec.unwrap_or_default();
        let since = match &self.seen {
            Seen::Lease { spec: known, since, .. } if *known == spec => *since,
            _ => now,
        };
        self.seen = Seen::Lease { version, spec, since };
    }

    /// Our write of the Lease, which began at `begun`, has succeeded with this answer.
    pub fn wrote(&mut self, lease: Lease, begun: Moment) {
        self.saw(Some(lease), begun);
        self.renewed = Some(begun);
    }

    /// A write was refused, or nobody knows what became of it; or some time has passed.
    pub fn doubt(&mut self) {
        self.stale = true;
    }

    /// What to do at this moment.
    pub fn decide(&self, now: Moment) -> Decision {
        if let Some(renewed) = self.renewed {
            let since = renewed.until(now);
            if since >= self.timing.deadline {
                return Decision::Lost(Loss::Late(since));
            }
        }
        if self.stale {
            return Decision::Look;
        }
        let Seen::Lease { version, spec, since } = &self.seen else {
            return match self.leads() {
                true => Decision::Lost(Loss::Deleted),
                false => Decision::Create,
            };
        };
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let version = version.clone();
        if holder == self.identity {
            return Decision::Renew { version };
        }
        if self.leads() {
            // Even when nobody holds it: another may have had it and let it go since our last renewal.
            return Decision::Lost(Loss::Taken(holder.into()));
        }
        let free_at = since.after(self.lasts(spec));
        if holder.is_empty() || free_at <= now {
            return Decision::Acquire { version, transitions: spec.lease_transitions.unwrap_or(0) + 1 };
        }
        Decision::Wait(free_at)
    }

    /// When to come back after a turn that began at `begun`.
    pub fn next(&self, begun: Moment) -> Moment {
        let retry = begun.after(self.timing.retry);
        match self.renewed {
            Some(renewed) if !self.stale => renewed.after(self.timing.renew),
            // Never later than the end of what we have.
            Some(renewed) => retry.min(renewed.after(self.timing.deadline)),
            None => match self.decide(begun) {
                Decision::Wait(free_at) if free_at > begun => retry.min(free_at),
                _ => retry,
            },
        }
    }

    /// How long the holder may count on it: what it has written, which another release may have chosen differently, but no
    /// less than we would take and no more than is bearable.
    fn lasts(&self, spec: &LeaseSpec) -> Duration {
        let written = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
        Duration::from_secs(written).min(LONGEST).max(self.timing.lease)
    }
}
