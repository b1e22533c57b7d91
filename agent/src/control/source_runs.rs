//! The workers that send: one for each run that this node is the source of, shared by the run's hops. A worker is taken
//! when the first hop sits down and ended when the last one leaves.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::sync::{Mutex as AsyncMutex, mpsc};

use super::events::{hop_of, worker_lost};
use super::workers::{Worker, WorkerEvent, WorkerSender, Workers};
use crate::protocol::{Failure, FromWorker, HopId, Network, ToWorker, WorkerName};

/// A run: UID of the job, number of the run, and whether the hop ends on its own node, where the network is another.
pub type RunKey = (String, i64, bool);

/// Where a run's worker is, if it has one. Held while someone sits down or leaves.
type Place = Arc<AsyncMutex<Option<Arc<RunWorker>>>>;

/// Who hears about which hop of a worker.
type Seats = Arc<Mutex<HashMap<HopId, mpsc::Sender<WorkerEvent>>>>;

/// Events that one hop may have waiting; a hop that does not read holds up its worker, not the agent's memory.
const EVENTS: usize = 64;

/// The senders of this node.
#[derive(Clone)]
pub struct SourceRuns {
    workers: Workers,
    runs: Arc<Mutex<HashMap<RunKey, Place>>>,
}

/// The worker of one run and who sits in it.
struct RunWorker {
    name: WorkerName,
    sender: WorkerSender,
    seats: Seats,
    next: AtomicU32,
    gone: tokio::sync::watch::Receiver<bool>,
}

/// A hop's place in its run's worker.
pub struct Seat {
    /// Number of the hop in this worker.
    pub hop: HopId,
    /// Messages about this hop, and the worker's end.
    pub events: mpsc::Receiver<WorkerEvent>,
    worker: Arc<RunWorker>,
    place: Place,
}

impl SourceRuns {
    /// No run yet.
    pub fn new(workers: Workers) -> Self {
        Self { workers, runs: Arc::default() }
    }

    /// Takes a seat in the run's worker; takes a worker for the run if it has none.
    pub async fn sit(&self, run: RunKey, network: &Network) -> Result<Seat, Failure> {
        let place = {
            let mut runs = self.runs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // Runs whose worker is gone leave an empty place behind; they are cleared here.
            runs.retain(|key, place| {
                *key == run
                    || Arc::strong_count(place) > 1
                    || place.try_lock().is_ok_and(|worker| worker.is_some())
            });
            runs.entry(run).or_default().clone()
        };
        let mut held = place.lock().await;
        let usable = held.as_ref().filter(|worker| !*worker.gone.borrow()).cloned();
        let worker = match usable {
            Some(worker) => worker,
            None => {
                let worker = RunWorker::start(self.workers.take(network).await?);
                *held = Some(worker.clone());
                worker
            }
        };
        let hop = HopId(worker.next.fetch_add(1, Ordering::Relaxed));
        let (sender, events) = mpsc::channel(EVENTS);
        worker.seats().insert(hop, sender);
        // A worker that ended in between has told those who sat there before us, and would never tell us.
        if *worker.gone.borrow() {
            worker.seats().remove(&hop);
            return Err(worker_lost("it ended before the hop began"));
        }
        drop(held);
        Ok(Seat { hop, events, worker, place })
    }
}

impl RunWorker {
    fn start(mut worker: Worker) -> Arc<Self> {
        let seats = Seats::default();
        let (told, gone) = tokio::sync::watch::channel(false);
        let this = Arc::new(Self {
            name: worker.name.clone(),
            sender: worker.sender(),
            seats: seats.clone(),
            next: AtomicU32::new(0),
            gone,
        });
        // Ends with the worker: `Gone` is always the last event. It owns the worker, whose drop would end it.
        tokio::spawn(async move {
            while let Some(event) = worker.events.recv().await {
                match event {
                    WorkerEvent::Message(FromWorker::NotReady { message }) => {
                        let all: Vec<_> = lock(&seats).values().cloned().collect();
                        for seat in all {
                            let message = FromWorker::NotReady { message: message.clone() };
                            let _ = seat.send(WorkerEvent::Message(message)).await;
                        }
                    }
                    WorkerEvent::Message(message) => {
                        let seat = hop_of(&message).and_then(|hop| lock(&seats).get(&hop).cloned());
                        if let Some(seat) = seat {
                            // A hop that has left reads no more; its messages are of no use to anyone.
                            let _ = seat.send(WorkerEvent::Message(message)).await;
                        }
                    }
                    // Nobody has asked for it.
                    WorkerEvent::Allocated { .. } => {}
                    WorkerEvent::Gone { status } => {
                        told.send_replace(true);
                        let all: Vec<_> = lock(&seats).drain().map(|(_, seat)| seat).collect();
                        for seat in all {
                            let _ = seat.send(WorkerEvent::Gone { status: status.clone() }).await;
                        }
                    }
                }
            }
            told.send_replace(true);
            // Without a last word, since the pool is gone: whoever still waits sees the end of its events.
            lock(&seats).clear();
        });
        this
    }

    fn seats(&self) -> std::sync::MutexGuard<'_, HashMap<HopId, mpsc::Sender<WorkerEvent>>> {
        lock(&self.seats)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing in here can panic while it holds the lock; if it did, the map would still be whole.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Seat {
    /// The worker's name, which the peer must find in our metadata.
    pub fn worker(&self) -> &WorkerName {
        &self.worker.name
    }

    /// Talks to the worker, also while its events are waited for.
    pub fn sender(&self) -> WorkerSender {
        self.worker.sender.clone()
    }

    /// Sends a message to the worker.
    pub async fn send(
        &self,
        message: ToWorker,
        descriptors: Vec<std::os::fd::OwnedFd>,
    ) -> Result<(), Failure> {
        self.worker.sender.send(message, descriptors).await
    }

    /// Closes the hop. The last one to leave ends the worker and waits until it is gone.
    pub async fn leave(self) {
        let Self { hop, events, worker, place } = self;
        drop(events);
        // Nobody can sit down while the place is held, so the last one is really the last.
        let mut held = place.lock().await;
        worker.seats().remove(&hop);
        let alone = worker.seats().is_empty();
        if !alone {
            // The worker is there for the others; if it has just died there is nothing left to close.
            let _ = worker.sender.send(ToWorker::Close { hop }, Vec::new()).await;
            return;
        }
        worker.sender.kill();
        let mut gone = worker.gone.clone();
        // The pump ends with the worker, which is the only thing waited for here.
        let _ = gone.wait_for(|gone| *gone).await;
        if held.as_ref().is_some_and(|current| Arc::ptr_eq(current, &worker)) {
            *held = None;
        }
    }
}
