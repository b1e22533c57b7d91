//! What both sides of a hop share: what they are given, what ends them early, how long they wait, and how an end stands in
//! the status. The sides' own work is in `source` and `target`.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, ResourceExt};
use nixl_transfer_crds::{
    Algorithm, Quantity, Reason, TransferTask,
    reason::Class,
    task::{
        Side, SideState,
        status::{Operation, OperationKind, OperationState},
    },
};
use tokio::sync::watch;
use tracing::warn;

use super::{HopContext, order, report::Report};
use crate::{
    metrics::Metrics,
    protocol::{Failure, StreamOptions},
    volume::{Memory, RunPlace, Volume},
};

/// The task as the watch last showed it; `None` when it is gone.
pub type TaskUpdates = watch::Receiver<Option<Arc<TransferTask>>>;

/// How a side ended.
#[derive(Debug)]
pub enum Ending {
    /// It did all it had to.
    Succeeded,
    /// It was told to stop.
    Cancelled,
    /// It could not.
    Failed(Failure),
}

/// What one side works with.
pub struct Hop {
    /// What every hop of this agent shares.
    pub context: Arc<HopContext>,
    /// The task as it was first seen; its spec does not change but for `cancel`.
    pub task: Arc<TransferTask>,
    /// Later versions of it.
    pub updates: TaskUpdates,
}

impl Hop {
    /// A reporter for this task.
    pub fn report(&self) -> Report {
        let namespace = self.task.namespace().unwrap_or_default();
        let api = Api::namespaced(self.context.client.clone(), &namespace);
        Report::start(api, self.task.name_any(), self.task.uid().unwrap_or_default())
    }

    /// Whether this agent still is the node's. Then a task of another instance is one of an earlier instance, and nobody
    /// but us can report about it; else there is a newer agent, and the task may be its own. Asks until there is an
    /// answer or the agent ends.
    pub async fn holds_lease(&self) -> bool {
        let context = &self.context;
        let leases: Api<Lease> = Api::namespaced(context.client.clone(), &context.config.lease_namespace);
        let ask = async {
            loop {
                let asked = tokio::time::timeout(ANSWERED_WITHIN, leases.get(&context.config.node_name));
                match asked.await {
                    Ok(Ok(lease)) => return lease.spec.and_then(|spec| spec.holder_identity),
                    Ok(Err(error)) => warn!(%error, "the Lease cannot be read; will try again"),
                    Err(_) => warn!("the API server did not say in time who holds the Lease; will try again"),
                }
                tokio::time::sleep(ASK_AGAIN_AFTER).await; // back-off
            }
        };
        let mut shutdown = context.shutdown.clone();
        tokio::select! {
            holder = ask => holder.as_deref() == Some(&context.instance),
            _ = shutdown.wait_for(|ends| *ends) => false,
        }
    }

    /// Something that ends the hop early: cancellation, loss of the Lease, the agent's own end.
    pub fn interrupt(&self, side: Side) -> impl Future<Output = Ending> + Send + use<> {
        let mut updates = self.updates.clone();
        let fallen = self.context.fence.fallen();
        let mut shutdown = self.context.shutdown.clone();
        let instance = self.context.instance.clone();
        async move {
            let cancelled = updates.wait_for(|task| {
                task.as_ref().is_none_or(|task| order::order(task, side, &instance) != order::Order::Run)
            });
            tokio::select! {
                _ = cancelled => Ending::Cancelled,
                () = fallen => Ending::Failed(Failure::new(
                    Reason::AgentNotReady,
                    "the agent could not renew its Lease and has ended its transfers; look at the network between the \
                     node and the API server",
                )),
                _ = shutdown.wait_for(|ends| *ends) => Ending::Failed(Failure::new(
                    Reason::AgentRestarted,
                    "the agent was stopped while it worked on the task",
                )),
            }
        }
    }

    /// Waits for the other side's metadata: the text and the name of the worker that it must carry.
    pub async fn peer(&self, side: Side) -> Result<(String, String), Failure> {
        let mut updates = self.updates.clone();
        let found =
            updates.wait_for(|task| task.as_ref().is_some_and(|task| order::peer(task, side).is_some()));
        let within = self.pending() + PEER_GRACE;
        let found = match tokio::time::timeout(within, found).await {
            Ok(Ok(task)) => task.as_ref().and_then(|task| order::peer(task, side)),
            Ok(Err(_)) => return Err(Failure::new(Reason::PeerLost, "the task is gone")),
            Err(_) => {
                let message = format!(
                    "the other side has published no metadata for {} s; look at its node",
                    within.as_secs()
                );
                return Err(Failure::new(Reason::PeerLost, message));
            }
        };
        let withdrawn = || Failure::new(Reason::PeerLost, "the other side withdrew its metadata");
        let (metadata, worker) = found.ok_or_else(withdrawn)?;
        Ok((self.context.sealing.open(&self.task, side, metadata).await?, worker))
    }

    /// What our worker wants published, for nobody but the other side.
    pub async fn sealed(&self, side: Side, metadata: String) -> Result<String, Failure> {
        let within = self.pending() + PEER_GRACE;
        let within = i64::try_from(within.as_secs()).unwrap_or(i64::MAX / 2);
        super::metadata::bounded(self.context.sealing.seal(&self.task, side, metadata, within).await?)
    }

    /// Whether the target's agent has said that it has everything, committed and verified.
    pub fn has_target_all(&self) -> bool {
        let task = self.updates.borrow();
        task.as_ref().and_then(|task| order::state(task, Side::Target)) == Some(SideState::Succeeded)
    }

    /// Waits until the target's agent says so. Without a clock of its own: how long storing may take is the target's matter, and
    /// the operator ends a task that stands still, which ends this.
    pub async fn target_has_it(&self) -> Result<(), Failure> {
        let mut updates = self.updates.clone();
        let state = |task: &TransferTask| order::state(task, Side::Target);
        let over = |task: &Option<Arc<TransferTask>>| {
            task.as_ref().is_none_or(|task| state(task).is_some_and(SideState::is_terminal))
        };
        let lost = |message: &str| Err(Failure::new(Reason::PeerLost, message));
        match updates.wait_for(over).await {
            Ok(task) if task.as_ref().and_then(|task| state(task)) == Some(SideState::Succeeded) => Ok(()),
            _ => lost("the target did not finish; its half of the task says why"),
        }
    }

    /// Namespace of the job.
    pub fn namespace(&self) -> String {
        self.task.namespace().unwrap_or_default()
    }

    /// Where the target keeps what is not complete yet, for this attempt and the next.
    pub fn place(&self) -> RunPlace {
        place(&self.task)
    }

    /// What the job's namespace knows of files that were read before.
    pub fn memory(&self) -> Memory {
        self.context.remembered.of(&self.namespace())
    }

    /// Whether both ends are on this node and share its staging memory.
    pub fn within_node(&self) -> bool {
        self.task.spec.source.node_name == self.task.spec.target.node_name
    }

    /// How long this hop may wait for anything.
    pub fn pending(&self) -> Duration {
        seconds(self.task.spec.deadlines.pending_seconds)
    }

    /// How the stream's chunks are made.
    pub fn stream(&self) -> Result<StreamOptions, Failure> {
        let spec = &self.task.spec;
        let bytes = |quantity: &Quantity| {
            quantity.bytes().map_err(|error| Failure::new(Reason::InvalidSpec, error.to_string()))
        };
        Ok(StreamOptions {
            chunk_size: bytes(&spec.transport.chunk_size)?,
            bytes_per_second: spec.transport.bandwidth_limit.as_ref().map(bytes).transpose()?,
            in_flight: u32::try_from(spec.transport.in_flight)
                .map_err(|_| Failure::new(Reason::InvalidSpec, "spec.transport.inFlight is negative"))?,
            algorithm: self.algorithm(),
            progress_seconds: seconds(spec.deadlines.progress_seconds).as_secs(),
            connect_seconds: self.pending().as_secs(),
        })
    }

    /// The digest of file contents.
    pub fn algorithm(&self) -> Algorithm {
        self.task.spec.integrity.algorithm
    }

    /// The volume of that name, if the job's namespace may use it.
    pub fn volume(&self, wanted: &str) -> Result<Arc<Volume>, Failure> {
        let node = &self.context.config.node_name;
        let namespace = self.task.namespace().unwrap_or_default();
        let volume = self.context.volumes.get(wanted).ok_or_else(|| {
            let published: Vec<&str> = self.context.volumes.keys().map(String::as_str).collect();
            Failure::new(
                Reason::VolumeNotFound,
                format!("node {node} publishes no volume {wanted:?}, only {published:?}; correct the name or add it to the agent's configuration"),
            )
        })?;
        if !volume.allows(&namespace) {
            return Err(Failure::new(
                Reason::VolumeForbidden,
                format!(
                    "volume {wanted:?} of node {node} is not published for namespace {namespace:?}; ask the administrator to add it to allowedNamespaces"
                ),
            ));
        }
        Ok(volume.clone())
    }

    /// The volume to write to.
    pub fn writable_volume(&self, wanted: &str) -> Result<Arc<Volume>, Failure> {
        let volume = self.volume(wanted)?;
        if volume.read_only {
            return Err(Failure::new(
                Reason::VolumeReadOnly,
                format!(
                    "volume {wanted:?} of node {} is published read-only; choose another",
                    self.context.config.node_name
                ),
            ));
        }
        Ok(volume)
    }
}

impl Ending {
    /// Counts an end that another attempt can follow.
    pub fn count(&self, metrics: &Metrics) {
        if let Ending::Failed(failure) = self
            && failure.reason.class() == Class::Retryable
        {
            metrics.retry(failure.reason.as_str());
        }
    }

    /// How the end stands in the status: state, the operation's status, reason, message.
    pub fn stands(self, kind: OperationKind) -> (SideState, Operation, Option<String>, Option<String>) {
        let (state, status, reason, message) = match self {
            Ending::Succeeded => (SideState::Succeeded, OperationState::Complete, None, None),
            Ending::Cancelled => (
                SideState::Cancelled,
                OperationState::Cancelled,
                Some(Reason::Cancelled),
                Some("ended on request".to_owned()),
            ),
            Ending::Failed(failure) => {
                let message = nixl_transfer_crds::condition::shortened(&failure.message);
                (SideState::Failed, OperationState::Errored, Some(failure.reason), Some(message))
            }
        };
        (state, Operation { kind, status }, reason.map(|reason| reason.as_str().to_owned()), message)
    }

    /// What an order that leaves nothing to do means for the side.
    pub fn of_order(order: order::Order) -> Option<Ending> {
        match order {
            order::Order::Run | order::Order::Nothing => None,
            order::Order::Cancel => Some(Ending::Cancelled),
            order::Order::Restarted => Some(Ending::Failed(Failure::new(
                Reason::AgentRestarted,
                "the agent was restarted while it worked on the task; its workers are gone; the next attempt goes on from what was durable",
            ))),
        }
    }
}

/// Where a task's target keeps what is not complete yet.
pub fn place(task: &TransferTask) -> RunPlace {
    RunPlace {
        job_uid: task.spec.job_ref.uid.clone(),
        run: task.spec.run,
        destination: task.spec.target.destination.clone(),
        node_uid: task.spec.target.node_uid.clone(),
    }
}

/// The API server says within this time who holds the Lease.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// What the other side may need beyond the deadline that both share.
const PEER_GRACE: Duration = Duration::from_secs(15);

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(1).max(1))
}
