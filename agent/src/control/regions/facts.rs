//! What shall stand in a MemoryRegion's status. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nixl_transfer_crds::{
    MemoryRegion, Reason,
    condition::{self, READY, Truth},
    region::{
        Held, MemoryRegionStatus,
        status::{HolderPod, RegionContent},
    },
};

use crate::{
    protocol::Failure,
    region::{Content, Shown},
};

/// The status, given what stands there, what is held of it and what is wrong.
pub fn status(
    region: &MemoryRegion,
    instance: &str,
    shown: Option<&Shown>,
    trouble: Option<&Failure>,
    consumed: Option<&String>,
    ending: bool,
    now: Timestamp,
) -> MemoryRegionStatus {
    let before = region.status.clone().unwrap_or_default();
    let held = shown.filter(|shown| !ending && Some(&shown.uid) == region.metadata.uid.as_ref());
    let (truth, reason, message) = match (held, trouble) {
        _ if ending => {
            (Truth::False, Reason::RegionNotReady, "the agent is ending, and its memory is gone".to_owned())
        }
        (_, Some(failure)) => (Truth::False, failure.reason, failure.message.clone()),
        (Some(shown), None) => (Truth::True, Reason::Succeeded, format!("{} bytes are there", shown.bytes)),
        (None, None) => (Truth::False, Reason::RegionNotReady, waits_for(&region.spec.held).to_owned()),
    };
    let generation = region.metadata.generation;
    let mut conditions = before.conditions;
    condition::set(&mut conditions, READY, truth, reason, &message, generation, now);
    MemoryRegionStatus {
        observed_generation: generation,
        rdma_metadata: before.rdma_metadata,
        size: held.map(|shown| signed(shown.bytes)),
        device: held.map(|shown| shown.device.clone()),
        instance: Some(instance.to_owned()),
        pod: held
            .and_then(|shown| shown.pod.as_ref())
            .map(|pod| HolderPod { name: pod.name.clone(), uid: pod.uid.clone() }),
        content: held.and_then(|shown| shown.content.as_ref()).map(content),
        consumed: consumed.cloned(),
        conditions,
    }
}

fn waits_for(held: &Held) -> &'static str {
    match held {
        Held::Agent(_) => "the memory is being allocated",
        Held::Workload(_) => "no pod has handed over the memory",
        Held::External(_) => "no workload has written status.rdmaMetadata",
    }
}

/// Whether a status says that the region can be used.
pub fn is_ready(status: &MemoryRegionStatus) -> bool {
    condition::is_true(&status.conditions, READY)
}

fn content(content: &Content) -> RegionContent {
    RegionContent {
        bytes: signed(content.bytes),
        digest: content.digest.clone(),
        job: content.job.clone(),
        // As the API server keeps it.
        time: Time(Timestamp::from_second(content.time.as_second()).unwrap_or(content.time)),
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
