//! Who may come in, and how many: those that have not said who they are wait for each other's turn, and of each pod there
//! are few. Pure but for the lock.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{Pod, Refusal};

/// Connections that have not said who they are.
const MAX_UNKNOWN: usize = 128;
/// How long each of them has for that, however many come. One that is there longer makes room for the next.
const OWN_TIME: Duration = Duration::from_millis(250);
/// Connections whose token the API server is asked about.
const MAX_ASKING: usize = 256;
/// Connections of one pod.
const MAX_OF_A_POD: usize = 4;
/// Connections of all pods.
const MAX_KNOWN: usize = 1024;
/// Connections of all kinds, those that are being closed among them: each may have a thread that closes it.
const MAX_OPEN: usize = MAX_KNOWN + MAX_ASKING + MAX_UNKNOWN + 256;
/// When there are too many that are being closed, nobody tells of an end.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Connections as they are counted; clones share it.
#[derive(Clone, Default)]
pub(super) struct Doors(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    /// Those that have not said who they are, oldest first.
    unknown: VecDeque<Stranger>,
    /// Those whose token is being looked at.
    asking: usize,
    /// Number of connections by UID of the pod.
    pods: HashMap<String, usize>,
    /// All.
    open: usize,
}

struct Stranger {
    number: u64,
    since: Instant,
    push: oneshot::Sender<()>,
}

/// A connection that is not closed yet; counted until this is dropped.
pub(super) struct Open(Doors);

/// A connection that was let in and has not said who it is.
pub(super) struct Admitted {
    doors: Doors,
    pub(super) number: u64,
    /// Resolves when this one is pushed out.
    pub(super) pushed: oneshot::Receiver<()>,
    asking: bool,
}

/// A connection of a pod; counted until this is dropped.
pub(super) struct OfPod {
    doors: Doors,
    pod: String,
}

impl Doors {
    /// Every change leaves the counts whole, so a panic elsewhere does no harm.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the next one is to be kept waiting; zero when it may come in.
    pub(super) fn full_for(&self, now: Instant) -> Duration {
        let counts = self.lock();
        if counts.open >= MAX_OPEN {
            return LOOK_AGAIN;
        }
        match counts.unknown.front() {
            Some(oldest) if counts.unknown.len() >= MAX_UNKNOWN => {
                (oldest.since + OWN_TIME).saturating_duration_since(now)
            }
            _ => Duration::ZERO,
        }
    }

    /// Lets one in, and the oldest stranger out if there are too many.
    pub(super) fn admit(&self, number: u64, now: Instant) -> (Admitted, Open) {
        let (push, pushed) = oneshot::channel();
        let mut counts = self.lock();
        counts.open += 1;
        counts.unknown.push_back(Stranger { number, since: now, push });
        if counts.unknown.len() > MAX_UNKNOWN
            && let Some(oldest) = counts.unknown.pop_front()
        {
            // It may have gone by itself.
            let _ = oldest.push.send(());
        }
        (Admitted { doors: self.clone(), number, pushed, asking: false }, Open(self.clone()))
    }
}

impl Admitted {
    /// It has said who it is: nobody pushes it out while that is looked at.
    pub(super) fn asks(&mut self) -> Result<(), Refusal> {
        let mut counts = self.doors.lock();
        if counts.asking >= MAX_ASKING {
            return Err(too_many("too many connections say who they are; connect again later"));
        }
        counts.unknown.retain(|stranger| stranger.number != self.number);
        counts.asking += 1;
        self.asking = true;
        Ok(())
    }

    /// It is this pod.
    pub(super) fn known_as(self, pod: &Pod) -> Result<OfPod, Refusal> {
        let mut counts = self.doors.lock();
        let all: usize = counts.pods.values().sum();
        let of_pod = counts.pods.get(&pod.uid).copied().unwrap_or(0);
        if of_pod >= MAX_OF_A_POD {
            return Err(too_many(&format!("a pod may have {MAX_OF_A_POD} connections; close one first")));
        }
        if all >= MAX_KNOWN {
            return Err(too_many(&format!(
                "pods of this node have {MAX_KNOWN} connections; connect again later"
            )));
        }
        counts.pods.insert(pod.uid.clone(), of_pod + 1);
        drop(counts);
        Ok(OfPod { doors: self.doors.clone(), pod: pod.uid.clone() })
    }
}

/// Too many of something.
pub(super) fn too_many(what: &str) -> Refusal {
    Refusal::new("TooMany", what)
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.doors.lock();
        counts.unknown.retain(|stranger| stranger.number != self.number);
        counts.asking -= usize::from(self.asking);
    }
}

impl Drop for OfPod {
    fn drop(&mut self) {
        let mut counts = self.doors.lock();
        if let Some(count) = counts.pods.get_mut(&self.pod) {
            *count -= 1;
            if *count == 0 {
                counts.pods.remove(&self.pod);
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().open -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str) -> Pod {
        Pod { namespace: "ml".into(), name: "p".into(), uid: uid.into() }
    }

    fn counts(doors: &Doors) -> (usize, usize, usize, usize) {
        let counts = doors.lock();
        (counts.unknown.len(), counts.asking, counts.pods.len(), counts.open)
    }

    #[test]
    fn strangers_have_a_time_of_their_own_and_then_make_room_oldest_first() {
        let (doors, start) = (Doors::default(), Instant::now());
        let mut all: Vec<_> = (0..MAX_UNKNOWN as u64).map(|number| doors.admit(number, start)).collect();
        assert_eq!(doors.full_for(start), OWN_TIME, "they were let in just now");
        assert_eq!(doors.full_for(start + OWN_TIME), Duration::ZERO);
        let _next = doors.admit(1000, start + OWN_TIME);
        let pushed: Vec<bool> =
            all.iter_mut().map(|(admitted, _)| admitted.pushed.try_recv().is_ok()).collect();
        assert!(pushed[0] && !pushed[1..].contains(&true));
        // One that says who it is makes room, and is pushed out no more.
        all[1].0.asks().unwrap();
        assert_eq!(doors.full_for(start), Duration::ZERO);
        drop(all);
        assert_eq!(counts(&doors), (1, 0, 0, 1));
    }

    #[test]
    fn one_pod_takes_no_place_from_another_and_who_is_known_asks_no_more() {
        let (doors, now) = (Doors::default(), Instant::now());
        let enter = |number, uid: &str| {
            let (mut admitted, open) = doors.admit(number, now);
            admitted.asks()?;
            Ok::<_, Refusal>((admitted.known_as(&pod(uid))?, open))
        };
        let greedy: Vec<_> = (0..MAX_OF_A_POD as u64).map(|at| enter(at, "greedy").unwrap()).collect();
        let why = enter(10, "greedy").err().unwrap();
        assert!(why.reason == "TooMany" && why.message.contains("close one"), "{why:?}");
        // As many as there may be: more than may ask at once, so that those who have asked cannot count there.
        let others: Vec<_> = (0..MAX_KNOWN - greedy.len())
            .map(|at| enter(at as u64, &format!("pod-{}", at / MAX_OF_A_POD)).unwrap())
            .collect();
        assert!(enter(11, "late").err().unwrap().message.contains("1024"));
        drop(greedy);
        drop(enter(12, "late").unwrap());
        drop(others);
        assert_eq!(counts(&doors), (0, 0, 0, 0));
    }

    #[test]
    fn what_is_being_closed_counts_until_it_is() {
        let (doors, now) = (Doors::default(), Instant::now());
        let closing: Vec<Open> = (0..MAX_OPEN as u64).map(|number| doors.admit(number, now).1).collect();
        assert_eq!(doors.full_for(now), LOOK_AGAIN);
        drop(closing);
        assert_eq!(doors.full_for(now), Duration::ZERO);
    }
}
