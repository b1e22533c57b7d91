//! The right to write a destination, for one transfer at a time: the lock on the real directory, or the region. Waits for
//! others, and says so when it takes long.

use std::{sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nixl_transfer_crds::{
    Reason, VolumeRef,
    endpoint::Place,
    task::{TaskMemory, status::TargetSide},
};
use tokio::{sync::watch, time::Instant};

use crate::{
    control::{
        hop::Hop,
        report::{Half, Report},
        sink::Sink,
    },
    protocol::Failure,
    region::{RegionTarget, Writing, or_never},
    volume::{Destination, DestinationLock, Volume},
};

/// A target that waits says so after this time.
const BUSY_AFTER: Duration = Duration::from_millis(500);

/// The right to write.
pub(super) enum Claim {
    /// Beneath a volume.
    Volume(Arc<Volume>, DestinationLock),
    /// Into a region.
    Region(Box<Writing>),
}

/// Waits for the right to write where the task says, at most as long as the hop may wait for anything.
pub(super) async fn claim(hop: &Hop, report: &Report, half: &mut TargetSide) -> Result<Claim, Failure> {
    let context = &hop.context;
    let node = &context.config.node_name;
    match &hop.task.spec.target.place {
        Place::Volume(VolumeRef { name, path }) => {
            let volume = hop.writable_volume(name)?;
            let busy = format!(
                "another transfer writes to {path:?} of volume {name:?} on node {node}, inside it or around it; wait for it, or choose another path"
            );
            let locks = &context.locks;
            let lock = when_free(hop, report, half, locks.released(), busy, || locks.try_lock(&volume, path))
                .await?;
            Ok(Claim::Volume(volume, lock))
        }
        Place::Memory(memory) => {
            let TaskMemory { name, .. } = memory;
            let busy = format!("another transfer uses MemoryRegion {name} on node {node}; wait for it");
            let (regions, namespace) = (&context.regions, hop.namespace());
            let free = || regions.try_write(&namespace, memory, &hop.task.spec.job_ref.name);
            let writing = when_free(hop, report, half, regions.changes(), busy, free).await?;
            Ok(Claim::Region(Box::new(writing)))
        }
    }
}

async fn when_free<T>(
    hop: &Hop,
    report: &Report,
    half: &mut TargetSide,
    // Subscribed before the first try, so that nothing is missed between a try and a wait.
    mut changed: watch::Receiver<impl Send + Sync>,
    busy: String,
    mut attempt: impl FnMut() -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let deadline = Instant::now() + hop.pending();
    let say = Instant::now() + BUSY_AFTER;
    loop {
        if let Some(claimed) = attempt()? {
            return Ok(claimed);
        }
        let said = half.reason.is_some();
        let until = if said { deadline } else { deadline.min(say) };
        let _ = tokio::time::timeout_at(until, changed.changed()).await;
        if Instant::now() >= deadline {
            return Err(Failure::new(Reason::DestinationBusy, busy));
        }
        if !said && Instant::now() >= say {
            half.reason = Some(Reason::DestinationBusy.as_str().into());
            half.message = Some(busy.clone());
            half.last_transition_time = Some(Time(jiff::Timestamp::now()));
            report.set(Half::Target(Box::new(half.clone())));
        }
    }
}

impl Claim {
    /// Resolves when what is claimed is taken away, which a volume never is.
    pub(super) fn ended(&self) -> impl Future<Output = Failure> + Send + use<> {
        or_never(match self {
            Self::Volume(..) => None,
            Self::Region(writing) => Some(writing.ended()),
        })
    }

    /// Whether it is the memory that a workload of this node exposes by itself.
    pub(super) fn is_external(&self) -> bool {
        matches!(self, Self::Region(writing) if writing.offered().is_some())
    }

    /// Takes up the destination. Does I/O.
    pub(super) fn open(self, hop: &Hop) -> Result<Sink, Failure> {
        let spec = &hop.task.spec;
        match (self, &spec.target.place) {
            (Self::Volume(volume, lock), Place::Volume(VolumeRef { path, .. })) => {
                let (policy, node) = (spec.write_policy, &spec.source.node_name);
                let destination =
                    Destination::open(&volume, path, policy, &hop.place(), node, hop.algorithm(), lock)?;
                Ok(Sink::Volume(Box::new(destination.remembering(hop.memory()))))
            }
            (Self::Region(writing), _) => {
                Ok(Sink::Region(Box::new(RegionTarget::new(*writing, hop.algorithm()))))
            }
            (Self::Volume(..), Place::Memory(_)) => Err(Failure::new(
                Reason::InvalidSpec,
                "the task's target is memory and a volume was claimed for it",
            )),
        }
    }
}
