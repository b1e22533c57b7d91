//! Whether agents are alive, by the operator's own observation: a Lease that has not changed for 60 s of our monotonic
//! clock means gone, whatever times stand in it. After a start of the operator every Lease has 60 s. No I/O.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use k8s_openapi::api::coordination::v1::Lease;

use super::{Change, Clock, LEASE_GONE};
use crate::{cluster::Liveness, leader};

#[derive(Debug)]
struct Seen {
    version: String,
    changed: Instant,
    /// Whether the agent is known to have been alive then; else only nothing else is known.
    proven: bool,
}

/// What was seen of the agents' Leases, by node.
#[derive(Debug, Default)]
pub struct Leases {
    seen: HashMap<String, Seen>,
    /// Since when the watch of Leases is interrupted: what cannot be seen proves nothing about an agent.
    blind_since: Option<Instant>,
    /// When this process last looked.
    looked: Option<Instant>,
}

/// The loop turns every second; after a pause like this the process itself stood still.
const STOOD_STILL: Duration = Duration::from_secs(10);

impl Leases {
    /// Takes in what the watch says.
    pub fn observe(&mut self, change: &Change<Lease>, clock: Clock) {
        match change {
            // Not in the list and here now: it has just been created.
            Change::Put(lease) => self.put(lease, clock, true),
            Change::Gone(gone) => {
                if let Some(seen) = gone.name.as_ref().and_then(|name| self.seen.get_mut(name)) {
                    seen.proven = false;
                }
            }
            Change::All(leases, _) => {
                let listed =
                    |node: &str| leases.iter().any(|lease| lease.metadata.name.as_deref() == Some(node));
                for (node, seen) in &mut self.seen {
                    seen.proven = seen.proven && listed(node);
                }
                leases.iter().for_each(|lease| self.put(lease, clock, false));
            }
        }
    }

    fn put(&mut self, lease: &Lease, clock: Clock, new: bool) {
        let Some(node) = lease.metadata.name.clone().filter(|name| name != leader::LEASE) else { return };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        match self.seen.get_mut(&node) {
            Some(seen) if seen.version == version => {}
            Some(seen) => *seen = Seen { version, changed: clock.instant, proven: true },
            None => {
                // Only a hint, from another machine's clock: it decides whether something new is given to the agent
                // before its next renewal, never whether something is taken from it.
                let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
                let recent = renewed
                    .is_some_and(|time| clock.time.duration_since(time.0).abs().unsigned_abs() < LEASE_GONE);
                self.seen.insert(node, Seen { version, changed: clock.instant, proven: new || recent });
            }
        }
    }

    /// To be called at every turn, before anything is taken in or concluded. While this process stood still the agents'
    /// renewals waited unseen, so that time does not count against them either.
    pub fn look(&mut self, now: Instant) {
        let pause = self.looked.map(|looked| now.saturating_duration_since(looked)).unwrap_or_default();
        self.looked = Some(now);
        // What is blind is made good when it sees again.
        if pause > STOOD_STILL && self.blind_since.is_none() {
            tracing::warn!(
                seconds = pause.as_secs(),
                "the operator stood still; no agent is judged by that time"
            );
            self.seen.values_mut().for_each(|seen| seen.changed += pause);
        }
    }

    /// The watch of Leases was interrupted, or is alive again. The time between does not count against an agent: while
    /// the API server was away none could renew.
    pub fn set_watched(&mut self, watched: bool, now: Instant) {
        match (watched, self.blind_since) {
            (false, None) => self.blind_since = Some(now),
            (true, Some(since)) => {
                let blind = now.saturating_duration_since(since);
                self.seen.values_mut().for_each(|seen| seen.changed += blind);
                self.blind_since = None;
            }
            _ => {}
        }
    }

    /// Every Lease's state at that time.
    pub fn states(&self, now: Instant) -> Vec<(String, Liveness)> {
        let now = self.blind_since.map_or(now, |since| now.min(since));
        let state = |seen: &Seen| match seen.proven {
            _ if now.saturating_duration_since(seen.changed) >= LEASE_GONE => Liveness::Gone,
            true => Liveness::Fresh,
            false => Liveness::Unproven,
        };
        self.seen.iter().map(|(node, seen)| (node.clone(), state(seen))).collect()
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime};
    use kube::api::ObjectMeta;

    use super::*;

    fn lease(version: u32, renewed: Timestamp) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some("a".into()),
                resource_version: Some(version.to_string()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec { renew_time: Some(MicroTime(renewed)), ..LeaseSpec::default() }),
        }
    }

    #[test]
    fn only_an_observed_change_keeps_an_agent_alive() {
        let (start, day) = (Instant::now(), Timestamp::UNIX_EPOCH + SignedDuration::from_hours(9));
        let at = |seconds: u64| Clock { instant: start + Duration::from_secs(seconds), time: day };
        let state = |leases: &Leases, seconds| leases.states(at(seconds).instant)[0].1;
        let mut leases = Leases::default();
        let old = lease(1, day - SignedDuration::from_hours(1));
        leases.observe(&Change::All(vec![old], "9".into()), at(0));
        assert_eq!(state(&leases, 59), Liveness::Unproven, "grace after a start");
        assert_eq!(state(&leases, 60), Liveness::Gone);
        leases.observe(&Change::Put(lease(2, day)), at(70));
        assert_eq!(state(&leases, 129), Liveness::Fresh);
        leases.observe(&Change::Put(lease(2, day)), at(120));
        assert_eq!(state(&leases, 130), Liveness::Gone, "the same version again is no change");
    }

    #[test]
    fn time_in_which_nothing_could_be_seen_does_not_count() {
        let (start, day) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let at = |seconds: u64| Clock { instant: start + Duration::from_secs(seconds), time: day };
        let state = |leases: &Leases, seconds| leases.states(at(seconds).instant)[0].1;
        let mut leases = Leases::default();
        leases.observe(&Change::Put(lease(1, day)), at(0));
        leases.set_watched(false, at(10).instant);
        leases.set_watched(false, at(20).instant);
        assert_eq!(state(&leases, 500), Liveness::Fresh);
        leases.set_watched(true, at(510).instant);
        assert_eq!(state(&leases, 559), Liveness::Fresh);
        assert_eq!(state(&leases, 560), Liveness::Gone);
    }

    #[test]
    fn time_in_which_the_operator_stood_still_does_not_count() {
        let (start, day) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let at = |seconds: u64| Clock { instant: start + Duration::from_secs(seconds), time: day };
        let mut leases = Leases::default();
        let look = |leases: &mut Leases, seconds| {
            leases.look(at(seconds).instant);
            leases.states(at(seconds).instant)[0].1
        };
        leases.look(at(0).instant);
        leases.observe(&Change::Put(lease(1, day)), at(0));
        assert_eq!(look(&mut leases, 5), Liveness::Fresh);
        assert_eq!(look(&mut leases, 505), Liveness::Fresh, "stopped for 500 s");
        (506..560).for_each(|second| assert_eq!(look(&mut leases, second), Liveness::Fresh, "{second}"));
        assert_eq!(look(&mut leases, 560), Liveness::Gone, "then 60 s of looking without a change");
    }

    #[test]
    fn a_deleted_lease_gets_nothing_new_and_is_gone_in_time() {
        let day = Timestamp::UNIX_EPOCH;
        let clock = Clock { instant: Instant::now(), time: day };
        let mut leases = Leases::default();
        leases.observe(&Change::Put(lease(1, day)), clock);
        assert_eq!(leases.states(clock.instant)[0].1, Liveness::Fresh);
        leases.observe(&Change::All(Vec::new(), "5".into()), clock);
        assert_eq!(leases.states(clock.instant)[0].1, Liveness::Unproven);
        assert_eq!(leases.states(clock.instant + LEASE_GONE)[0].1, Liveness::Gone);
    }
}
