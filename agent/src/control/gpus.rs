//! What needs CUDA and belongs to no hop: memory of a GPU is allocated, and what a pod hands over is looked at. Control never
//! loads CUDA; a worker that does nothing else does it, and ends.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use nixl_transfer_crds::Reason;
use tokio::sync::{Semaphore, watch};

use super::{
    events::worker_lost,
    workers::{WorkerEvent, Workers},
};
use crate::{
    devices::{Gpu, Hardware},
    protocol::{DeviceMemory, Failure, FromWorker, ToWorker},
};

/// How long a worker may take: a driver that wakes a GPU takes seconds. One that hangs is found by its heartbeat.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// Workers that do this at once: each has a context, which costs half a GiB of the GPU.
const AT_ONCE: usize = 2;

/// The GPUs of this node, for those who need memory of them. Clones share the workers.
#[derive(Clone, Debug)]
pub struct Gpus {
    workers: Workers,
    hardware: watch::Receiver<Option<Arc<Hardware>>>,
    room: Arc<Semaphore>,
}

impl Gpus {
    /// By what the inventory sees.
    pub fn new(workers: Workers, hardware: watch::Receiver<Option<Arc<Hardware>>>) -> Self {
        Self { workers, hardware, room: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The GPU that a TransferNode names by this index.
    ///
    /// # Errors
    /// `NoSuchDevice`; `RegionNotReady` before NVML has answered.
    pub fn by_index(&self, index: &str) -> Result<Gpu, Failure> {
        self.find(&format!("cuda:{index}"), |gpu| gpu.index.to_string() == index)
    }

    /// The GPU with this UUID.
    ///
    /// # Errors
    /// As [`Self::by_index`].
    pub fn by_uuid(&self, uuid: &str) -> Result<Gpu, Failure> {
        self.find(uuid, |gpu| gpu.uuid.eq_ignore_ascii_case(uuid))
    }

    fn find(&self, what: &str, is_it: impl Fn(&Gpu) -> bool) -> Result<Gpu, Failure> {
        let hardware = self.hardware.borrow().clone();
        let Some(gpus) = hardware.as_deref().and_then(|hardware| hardware.gpus.as_ref()) else {
            let message = format!("the node's GPUs are being looked for, {what} among them");
            return Err(Failure::new(Reason::RegionNotReady, message));
        };
        gpus.iter().find(|gpu| is_it(gpu)).cloned().ok_or_else(|| {
            let names: Vec<String> = gpus.iter().map(|gpu| format!("cuda:{} ({})", gpu.index, gpu.uuid)).collect();
            let there = if names.is_empty() { "it has none".to_owned() } else { names.join(", ") };
            let message =
                format!("there is no GPU {what} on this node: {there}; choose one that `status.gpus` of its TransferNode lists");
            Failure::new(Reason::NoSuchDevice, message)
        })
    }

    /// Tells when GPUs may have come or gone.
    pub fn changes(&self) -> watch::Receiver<Option<Arc<Hardware>>> {
        self.hardware.clone()
    }

    /// Allocates memory, zeroed; the descriptor keeps it.
    ///
    /// # Errors
    /// What the worker says; `WorkerLost` and `AgentNotReady`.
    pub async fn allocate(&self, gpu: String, bytes: u64) -> Result<OwnedFd, Failure> {
        match self.ask(ToWorker::Allocate { gpu, bytes }, Vec::new()).await? {
            WorkerEvent::Allocated { memory } => Ok(memory),
            other => Err(unexpected(&other)),
        }
    }

    /// Looks whether this is memory of its GPU, and as long as is said.
    ///
    /// # Errors
    /// As [`Self::allocate`].
    pub async fn look(&self, memory: DeviceMemory, descriptors: Vec<OwnedFd>) -> Result<(), Failure> {
        match self.ask(ToWorker::Look { memory }, descriptors).await? {
            WorkerEvent::Message(FromWorker::Looked) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Has one worker do one thing.
    async fn ask(&self, what: ToWorker, descriptors: Vec<OwnedFd>) -> Result<WorkerEvent, Failure> {
        let ending = |_| Failure::new(Reason::AgentNotReady, "the agent is ending");
        let _room = self.room.acquire().await.map_err(ending)?;
        // Dropped, and so ended, when this is over, whatever comes.
        let mut worker = self.workers.take_alone().await?;
        worker.sender().send(what, descriptors).await?;
        match tokio::time::timeout(ANSWERED_WITHIN, worker.events.recv()).await {
            Ok(Some(WorkerEvent::Message(FromWorker::Refused { failure }))) => Err(failure),
            Ok(Some(WorkerEvent::Gone { status })) => Err(worker_lost(&status)),
            Ok(Some(event)) => Ok(event),
            Ok(None) => Err(worker_lost("its connection is closed")),
            Err(_) => {
                let message = format!(
                    "the GPU's driver did not answer within {} s; look at `nvidia-smi` and the kernel's log",
                    ANSWERED_WITHIN.as_secs()
                );
                Err(Failure::new(Reason::RegionNotReady, message))
            }
        }
    }
}

fn unexpected(event: &WorkerEvent) -> Failure {
    tracing::warn!(?event, "a worker answered something else than it was asked");
    worker_lost("it answered something else than it was asked")
}
