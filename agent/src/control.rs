//! Control: the side of the agent with the Kubernetes token. Watches this node's tasks and runs each side of each task in
//! an actor of its own. Never loads NIXL.

pub mod actor;
pub mod connection;
pub mod events;
pub mod external;
pub mod fence;
pub mod gpus;
pub mod hop;
pub mod inventory;
pub mod lease;
pub mod leftovers;
pub mod metadata;
pub mod nearby;
pub mod network;
pub mod order;
pub mod receive;
pub mod regions;
pub mod relay;
pub mod relays;
pub mod report;
pub mod sealing;
pub mod sink;
pub mod source;
pub mod source_runs;
pub mod staging;
pub mod supply;
pub mod target;
pub mod watch;
mod window;
pub mod workers;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use kube::Client;
use nixl_transfer_crds::{TransferTask, task::Side};
use tokio::{
    sync::{mpsc, watch as value},
    task::JoinSet,
};
use tracing::error;

use self::{
    fence::Fence,
    leftovers::Places,
    regions::Consumed,
    relays::Relays,
    sealing::Sealing,
    source_runs::SourceRuns,
    staging::Staging,
    watch::{Change, HopKey, WatchHealth},
    workers::Workers,
};
use crate::{
    config::Config,
    metrics::Metrics,
    region::Regions,
    volume::{DestinationLocks, Remembered, Volume},
};

/// What every hop of this agent shares.
pub struct HopContext {
    /// Access to the API server.
    pub client: Client,
    /// The agent's configuration.
    pub config: Arc<Config>,
    /// UUID of this start of the agent.
    pub instance: String,
    /// Published volumes by name.
    pub volumes: BTreeMap<String, Arc<Volume>>,
    /// Memory regions that this agent holds.
    pub regions: Regions,
    /// Where offers of workloads are written down that have served.
    pub consumed: mpsc::Sender<Consumed>,
    /// Locks on destinations.
    pub locks: DestinationLocks,
    /// The pool of workers.
    pub workers: Workers,
    /// The workers that send.
    pub source_runs: SourceRuns,
    /// Where the two hops of a relay meet.
    pub relays: Relays,
    /// Devices of the node, as last seen.
    pub hardware: nearby::Seen,
    /// Keeps what the two sides of a task say to each other from others.
    pub sealing: Sealing,
    /// Digests of files that were read before.
    pub remembered: Arc<Remembered>,
    /// Staging memory.
    pub staging: Staging,
    /// Whether this agent may still commit.
    pub fence: Fence,
    /// Counters and gauges.
    pub metrics: Metrics,
    /// True when the agent shall end.
    pub shutdown: value::Receiver<bool>,
}

/// How long hops may take to report when the agent ends.
const LAST_REPORTS: Duration = Duration::from_secs(10);

/// Changes that may wait; the watches wait when the loop does not keep up.
const CHANGES: usize = 256;

/// Runs this node's hops until the agent shall end and every hop is reported, or ten seconds after that.
pub async fn run_hops(context: Arc<HopContext>, health: Arc<WatchHealth>) {
    let (tell, changes) = mpsc::channel(CHANGES);
    let mut watches = JoinSet::new();
    for side in [Side::Source, Side::Target] {
        let node = context.config.node_name.clone();
        watches.spawn(watch::watch(context.client.clone(), node, side, health.clone(), tell.clone()));
    }
    drop(tell);
    let (places, wanted) = value::channel(Places::default());
    let volumes = context.volumes.values().cloned().collect();
    let mut collecting = JoinSet::new();
    collecting.spawn(leftovers::collect(volumes, wanted));
    let mut hops = Hops { actors: HashMap::new(), running: JoinSet::new(), places };
    let mut shutdown = context.shutdown.clone();
    tokio::select! {
        () = hops.follow(&context, changes) => error!("no more changes of tasks are followed"),
        // One alone would leave the agent blind on that side.
        Some(ended) = watches.join_next() => error!(?ended, "a watch of tasks has ended"),
        Some(ended) = collecting.join_next() => error!(?ended, "what dead runs leave is no longer collected"),
        _ = shutdown.wait_for(|ends| *ends) => {}
    }
    let Hops { mut running, places, .. } = hops;
    drop(places);
    let reported = async {
        while running.join_next().await.is_some() {}
        while collecting.join_next().await.is_some() {}
    };
    if tokio::time::timeout(LAST_REPORTS, reported).await.is_err() {
        error!(hops = running.len(), "not all hops could be reported, or not all leftovers removed, in time");
    }
}

/// The actors of this node. A key stays until its task is gone, so that an event from before an actor's last report
/// never starts a second one.
struct Hops {
    actors: HashMap<HopKey, value::Sender<Option<Arc<TransferTask>>>>,
    running: JoinSet<()>,
    /// The collection sees every change at once, and is woken by those that leave something to collect.
    places: value::Sender<Places>,
}

impl Hops {
    async fn follow(&mut self, context: &Arc<HopContext>, mut changes: mpsc::Receiver<Change>) {
        loop {
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => self.take(context, change),
                    None => return,
                },
                Some(ended) = self.running.join_next() => if let Err(failure) = ended {
                    // Its half would never end. A fresh start of the agent reports it.
                    error!(%failure, "a hop's actor ended badly; the agent ends");
                    return;
                },
            }
        }
    }

    fn take(&mut self, context: &Arc<HopContext>, change: Change) {
        self.places.send_if_modified(|places| places.take(&change));
        match change {
            Change::Listed(_) => {}
            Change::Seen(key, task) => {
                if let Some(actor) = self.actors.get(&key) {
                    actor.send_replace(Some(task));
                    return;
                }
                let side = key.1;
                let (updates, receiver) = value::channel(Some(task.clone()));
                self.actors.insert(key, updates);
                if order::order(&task, side, &context.instance) != order::Order::Nothing {
                    self.running.spawn(actor::run(context.clone(), task, receiver, side));
                }
            }
            Change::Gone(key) => {
                if let Some(actor) = self.actors.remove(&key) {
                    actor.send_replace(None);
                }
            }
        }
    }
}
