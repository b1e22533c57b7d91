//! A hop's network, before and after: asks the inventory and the pool for what it is decided from, waiting not long for their
//! first look, and puts what was used into the half and the metrics.

use std::{sync::Arc, time::Duration};

use nixl_transfer_crds::task::status::TargetSide;
use tokio::sync::watch;

use super::{
    HopContext,
    hop::Hop,
    network::{self, Choice, Here},
    staging::Staging,
    workers::NixlFacts,
};
use crate::{
    devices::Hardware,
    protocol::{Failure, Used},
};

/// The devices as last seen; `None` before the first look.
pub type Seen = watch::Receiver<Option<Arc<Hardware>>>;

/// A hop right after the agent's start waits so long for the first look at devices. Without it, it goes over TCP and says so.
const SEEN_WITHIN: Duration = Duration::from_secs(3);

/// The network for one side of a hop. A worker that sends serves all hops of its run, one that receives its own only.
pub async fn network(hop: &Hop, sends: bool) -> Result<Choice, Failure> {
    let context = &hop.context;
    let hardware = hardware(context).await;
    let spec = &hop.task.spec;
    let memory = if sends { spec.source.place.memory() } else { spec.target.place.memory() };
    let gpu = memory.and_then(|memory| context.regions.gpu(&hop.namespace(), memory));
    let ring = Staging::need(&spec.transport)?;
    let hops = if sends { context.config.slots.max(1) } else { 1 };
    let here = Here {
        node: &context.config.node_name,
        interfaces: &context.config.network.devices,
        named: context.config.network.named,
        devices: &hardware.devices,
        memlock: memlock(context),
        registers: ring.saturating_mul(hops.into()).min(context.config.staging_bytes().max(ring)),
        gpu: gpu.as_deref().and_then(|uuid| hardware.place_of(uuid)),
    };
    let choice = network::choose(spec, &here)?;
    if let Some(shortfall) = &choice.shortfall {
        tracing::debug!(reason = shortfall.reason.as_str(), %shortfall, "no RDMA from this node");
    }
    Ok(choice)
}

/// What the worker's UCX moves the bytes with goes into the half, and a first fallback is counted.
pub fn used(hop: &Hop, half: &mut TargetSide, choice: &Choice, used: &Used) -> Result<(), Failure> {
    let transport = choice.used(used)?;
    let fell_back =
        |half: &TargetSide| half.transport.as_ref().is_some_and(|used| used.fallback_reason.is_some());
    let before = fell_back(half);
    if let (false, Some(reason)) = (before, &transport.fallback_reason) {
        hop.context.metrics.fallback(reason);
        tracing::info!(reason, network = transport.network, devices = ?transport.devices, "not the best network");
    }
    half.transport = Some(transport);
    Ok(())
}

async fn hardware(context: &HopContext) -> Arc<Hardware> {
    let mut seen = context.hardware.clone();
    let found = tokio::time::timeout(SEEN_WITHIN, seen.wait_for(Option::is_some)).await;
    found.ok().and_then(Result::ok).and_then(|seen| seen.clone()).unwrap_or_default()
}

/// As a worker found it; the first hop waits for the first worker (`run`).
fn memlock(context: &HopContext) -> Option<u64> {
    match &*context.workers.facts().borrow() {
        Some(NixlFacts::Usable { memlock, .. }) => *memlock,
        _ => None,
    }
}
