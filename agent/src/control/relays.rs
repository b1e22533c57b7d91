//! Where the two hops of a relay on this node meet: the one that receives offers its worker, the one that sends on takes
//! it. No I/O.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nixl_transfer_crds::Reason;
use tokio::sync::{mpsc, watch};

use super::workers::{WorkerEvent, WorkerSender};
use crate::protocol::{Failure, WorkerName};

/// The task that sends on: its namespace and name.
pub type RelayKey = (String, String);

/// Relays whose receiving hop is over, of which the last are kept: the sending hop may look later.
const OVER: usize = 256;

/// The table of relays; clones share it.
#[derive(Clone, Default)]
pub struct Relays(Arc<Table>);

struct Table {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    offers: HashMap<RelayKey, Offer>,
    over: VecDeque<RelayKey>,
}

/// The worker of a hop that receives, for the hop that sends on.
pub struct Offer {
    /// The worker's name.
    pub name: WorkerName,
    /// Talks to it.
    pub sender: WorkerSender,
    /// What it says about the hop that sends on, and its end.
    pub events: mpsc::Receiver<WorkerEvent>,
}

/// A receiving hop that is to be relayed. When it is dropped the relay is over.
pub struct Relayed {
    key: RelayKey,
    table: Arc<Table>,
}

impl Default for Table {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Table {
    /// Every change leaves the state whole, so a panic elsewhere does no harm.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Relays {
    /// Begins the receiving hop's side.
    pub fn begin(&self, key: RelayKey) -> Relayed {
        Relayed { key, table: Arc::clone(&self.0) }
    }

    /// The worker to send on with, when it is there. The caller has the deadline.
    ///
    /// # Errors
    /// `PeerLost` when the receiving hop is over.
    pub async fn take(&self, key: &RelayKey) -> Result<Offer, Failure> {
        // Subscribed before the first look, so that no change is missed between look and wait.
        let mut changed = self.0.changed.subscribe();
        loop {
            {
                let mut state = self.0.lock();
                if let Some(offer) = state.offers.remove(key) {
                    return Ok(offer);
                }
                if state.over.contains(key) {
                    let message = "this node's own copy failed before it was sent on; the task that receives it says why";
                    return Err(Failure::new(Reason::PeerLost, message));
                }
            }
            if changed.changed().await.is_err() {
                return Err(Failure::new(Reason::AgentRestarted, "the agent is ending"));
            }
        }
    }
}

impl Relayed {
    /// The worker is there and knows of both hops.
    pub fn offer(&self, offer: Offer) {
        self.table.lock().offers.insert(self.key.clone(), offer);
        self.table.changed.send_replace(());
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        let mut state = self.table.lock();
        state.offers.remove(&self.key);
        if state.over.len() == OVER {
            state.over.pop_front();
        }
        state.over.push_back(self.key.clone());
        drop(state);
        self.table.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::workers::Worker;

    fn offer() -> Offer {
        let (worker, _) = Worker::hollow();
        Offer { name: worker.name.clone(), sender: worker.sender(), events: mpsc::channel(1).1 }
    }

    #[tokio::test]
    async fn the_two_hops_meet_whoever_comes_first_and_an_end_is_told() {
        let relays = Relays::default();
        let key = |name: &str| ("ml".to_owned(), name.to_owned());
        let early = relays.begin(key("early"));
        early.offer(offer());
        assert!(relays.take(&key("early")).await.is_ok());

        let at = key("late");
        let late = relays.begin(at.clone());
        let (taken, ()) = tokio::join!(relays.take(&at), async { late.offer(offer()) });
        assert!(taken.is_ok());

        let at = key("failing");
        let failing = relays.begin(at.clone());
        let (taken, ()) = tokio::join!(relays.take(&at), async { drop(failing) });
        assert_eq!(taken.err().map(|failure| failure.reason), Some(Reason::PeerLost));
        let again = relays.take(&at).await;
        assert!(again.is_err(), "also for one that looks later");
    }
}
