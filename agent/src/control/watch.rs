//! The tasks of this node, as two watches show them: those it sends for and those it receives for. Tells changes; decides
//! nothing.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use kube::{Api, Client, ResourceExt};
use nixl_transfer_crds::{TransferTask, task::Side};
use tokio::sync::mpsc;

/// UID of a task and our side of it.
pub type HopKey = (String, Side);

/// A change of a task of this node.
#[derive(Debug)]
pub enum Change {
    /// The task as it is now.
    Seen(HopKey, Arc<TransferTask>),
    /// The task is gone.
    Gone(HopKey),
    /// Every task of that side was seen.
    Listed(Side),
}

/// When each watch was last known to be alive.
#[derive(Debug)]
pub struct WatchHealth {
    started: Instant,
    /// Milliseconds since `started`, plus one; 0 for never. One for each side.
    alive: [AtomicU64; 2],
}

impl Default for WatchHealth {
    fn default() -> Self {
        Self { started: Instant::now(), alive: Default::default() }
    }
}

impl WatchHealth {
    fn mark(&self, side: Side) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        self.alive[index(side)].store(now, Ordering::Relaxed);
    }

    /// How long ago the longer silent of the two watches was alive; `None` when one never was.
    pub fn silence(&self) -> Option<Duration> {
        let oldest = self
            .alive
            .iter()
            .map(|alive| alive.load(Ordering::Relaxed))
            .min()
            .filter(|oldest| *oldest > 0)?;
        Some(self.started.elapsed().saturating_sub(Duration::from_millis(oldest - 1)))
    }
}

fn index(side: Side) -> usize {
    match side {
        Side::Source => 0,
        Side::Target => 1,
    }
}

/// Watches one side's tasks until the receiver of the changes is gone.
pub async fn watch(
    client: Client,
    node: String,
    side: Side,
    health: Arc<WatchHealth>,
    changes: mpsc::Sender<Change>,
) {
    let (field, what) = match side {
        Side::Source => ("spec.source.nodeName", "tasks that this node sends for"),
        Side::Target => ("spec.target.nodeName", "tasks that this node receives for"),
    };
    let sink = Sink { side, health, changes, known: HashSet::new() };
    follow::follow(Api::<TransferTask>::all(client), &format!("{field}={node}"), what, sink).await;
}

struct Sink {
    side: Side,
    health: Arc<WatchHealth>,
    changes: mpsc::Sender<Change>,
    known: HashSet<String>,
}

impl follow::Sink<TransferTask> for Sink {
    fn alive(&mut self) {
        self.health.mark(self.side);
    }

    async fn take(&mut self, change: follow::Change<TransferTask>) -> bool {
        match change {
            follow::Change::All(tasks, _) => {
                let listed: HashSet<String> =
                    tasks.iter().map(|task| task.uid().unwrap_or_default()).collect();
                let gone: Vec<String> = self.known.difference(&listed).cloned().collect();
                self.known = listed;
                for uid in gone {
                    if self.changes.send(Change::Gone((uid, self.side))).await.is_err() {
                        return false;
                    }
                }
                for task in tasks {
                    if !self.see(task).await {
                        return false;
                    }
                }
                self.changes.send(Change::Listed(self.side)).await.is_ok()
            }
            follow::Change::Put(task) => self.see(task).await,
            follow::Change::Gone(metadata) => {
                let uid = metadata.uid.unwrap_or_default();
                self.known.remove(&uid);
                self.changes.send(Change::Gone((uid, self.side))).await.is_ok()
            }
        }
    }
}

impl Sink {
    async fn see(&mut self, task: TransferTask) -> bool {
        let uid = task.uid().unwrap_or_default();
        self.known.insert(uid.clone());
        self.changes.send(Change::Seen((uid, self.side), Arc::new(task))).await.is_ok()
    }
}
