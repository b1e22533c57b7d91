//! The pool of worker processes as the rest of control sees it: take one, talk to it, end it, and hear of its end only
//! when it is proven. The pool itself is an actor in `pool`; each worker's socket has its threads in `link`.

mod link;
pub mod pool;

use std::{os::fd::OwnedFd, time::Duration};

use nixl_transfer_crds::Reason;
use tokio::sync::{mpsc, oneshot, watch};

use super::connection::Outgoing;
use super::events::hop_of;
use crate::protocol::{BackendFacts, Failure, FromWorker, HopId, Network, ToWorker, WorkerName};

/// A worker must be there within this time, else the hop fails and is tried again.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);

/// What workers have found out about NIXL on this node.
#[derive(Clone, Debug)]
pub enum NixlFacts {
    /// It is loaded and usable.
    Usable {
        /// NIXL's version.
        version: String,
        /// Its backends.
        backends: Vec<BackendFacts>,
        /// Bytes that a worker may lock; `None` for no limit.
        memlock: Option<u64>,
    },
    /// It cannot be used; why, and what to do.
    Unusable(String),
}

/// Events that may wait for each of two hops of a worker.
const EVENTS: usize = 64;

/// Handle of the pool.
#[derive(Clone, Debug)]
pub struct Workers {
    orders: mpsc::UnboundedSender<Order>,
    facts: watch::Receiver<Option<NixlFacts>>,
}

/// A worker that belongs to the one who took it. Dropping it ends it.
#[derive(Debug)]
pub struct Worker {
    /// Its unique name.
    pub name: WorkerName,
    /// What it says; the last is always its end.
    pub events: mpsc::Receiver<WorkerEvent>,
    sender: WorkerSender,
}

/// What a worker's owner hears.
#[derive(Debug)]
pub enum WorkerEvent {
    /// It said something.
    Message(FromWorker),
    /// It has allocated memory of a GPU.
    Allocated {
        /// What keeps the memory.
        memory: OwnedFd,
    },
    /// Its process is gone; nothing can reach its memory any more. Comes once, and nothing after it.
    Gone {
        /// How it ended, and why if control ended it.
        status: String,
    },
}

/// Talks to a worker.
#[derive(Clone, Debug)]
pub struct WorkerSender {
    name: WorkerName,
    queue: mpsc::Sender<Outgoing<ToWorker>>,
    orders: mpsc::UnboundedSender<Order>,
}

/// What the pool is asked to do, and what the threads of workers tell it.
#[derive(Debug)]
enum Order {
    Take(oneshot::Sender<Result<Worker, Failure>>),
    End(WorkerName),
    /// It has loaded NIXL, or not.
    Loaded(WorkerName, NixlFacts),
    /// Its socket has ended; why, if that was the worker's fault.
    Closed(WorkerName, Option<String>),
}

impl Workers {
    /// A worker with NIXL loaded and the network set. Waits for one if none is warm.
    ///
    /// # Errors
    /// `AgentNotReady` when NIXL cannot be used here or no worker came in time.
    pub async fn take(&self, network: &Network) -> Result<Worker, Failure> {
        let worker = self.take_alone().await?;
        worker.sender.send(ToWorker::Assign { network: network.clone() }, Vec::new()).await?;
        Ok(worker)
    }

    /// A worker that has no network, and so no peer.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub async fn take_alone(&self) -> Result<Worker, Failure> {
        let (reply, answer) = oneshot::channel();
        let ended = || Failure::new(Reason::AgentNotReady, "the agent is ending");
        self.orders.send(Order::Take(reply)).map_err(|_| ended())?;
        match tokio::time::timeout(TAKEN_WITHIN, answer).await {
            Ok(Ok(taken)) => taken,
            Ok(Err(_)) => Err(ended()),
            Err(_) => Err(Failure::new(
                Reason::AgentNotReady,
                format!("no worker was ready for {} s; look at the agent's log", TAKEN_WITHIN.as_secs()),
            )),
        }
    }

    /// What is known of NIXL on this node; `None` until the first worker has tried to load it.
    pub fn facts(&self) -> watch::Receiver<Option<NixlFacts>> {
        self.facts.clone()
    }
}

impl Worker {
    /// From now on what it says about this hop goes its own way, and its end both ways. What nobody reads there is dropped.
    pub fn split_off(&mut self, hop: HopId) -> mpsc::Receiver<WorkerEvent> {
        let (own, events) = mpsc::channel(EVENTS);
        let (other, split) = mpsc::channel(EVENTS);
        let mut all = std::mem::replace(&mut self.events, events);
        // Ends with the worker: `Gone` is always the last event.
        tokio::spawn(async move {
            while let Some(event) = all.recv().await {
                match event {
                    WorkerEvent::Message(message) if hop_of(&message) == Some(hop) => {
                        let _ = other.try_send(WorkerEvent::Message(message));
                    }
                    WorkerEvent::Gone { status } => {
                        let _ = other.try_send(WorkerEvent::Gone { status: status.clone() });
                        let _ = own.send(WorkerEvent::Gone { status }).await;
                    }
                    event => {
                        // Whoever hears no more has ended the worker.
                        let _ = own.send(event).await;
                    }
                }
            }
        });
        split
    }

    /// A handle to talk to it with.
    pub fn sender(&self) -> WorkerSender {
        self.sender.clone()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.sender.kill();
    }
}

impl WorkerSender {
    /// Queues a message; waits while the worker is behind. That ends: a worker that does not read is found and ended.
    ///
    /// # Errors
    /// `WorkerLost` when the worker is gone.
    pub async fn send(&self, message: ToWorker, descriptors: Vec<OwnedFd>) -> Result<(), Failure> {
        self.queue.send((message, descriptors)).await.map_err(|_| {
            Failure::new(Reason::WorkerLost, format!("worker {} takes no more messages", self.name.0))
        })
    }

    /// Ends the worker with SIGKILL; its end is told when it is proven. To do it twice changes nothing.
    pub fn kill(&self) {
        // Without a pool there is no launcher either, and so no worker.
        let _ = self.orders.send(Order::End(self.name.clone()));
    }
}

#[cfg(test)]
impl Worker {
    /// One without a process: it says what the test says.
    pub(super) fn hollow() -> (Self, mpsc::Sender<WorkerEvent>) {
        let ((tell, events), (queue, _), (orders, _)) =
            (mpsc::channel(1), mpsc::channel(1), mpsc::unbounded_channel());
        let name = WorkerName("hollow".into());
        (Self { name: name.clone(), events, sender: WorkerSender { name, queue, orders } }, tell)
    }
}
