//! Memory as an end of a hop: which region a job means, where it is, and what stands in the way of using it now. Pure.

use nixl_transfer_crds::{
    Reason, WritePolicy,
    endpoint::{MemoryRef, NodeRef, Place},
    task::TaskMemory,
};

use super::{
    Input,
    nodes::{Block, selector_of},
};
use crate::cluster::RegionView;

/// The region that a job names, if it is on the node that the job names, too.
///
/// # Errors
/// `RegionNotFound`.
pub fn find<'a>(
    input: &Input<'a>,
    what: &str,
    memory: &MemoryRef,
    node: Option<&NodeRef>,
) -> Result<&'a RegionView, Block> {
    let namespace = input.job.metadata.namespace.clone().unwrap_or_default();
    let name = &memory.name;
    let Some(region) = input.cluster.regions.get(&(namespace.clone(), name.clone())) else {
        let message = format!("{what}there is no MemoryRegion {name} in namespace {namespace}");
        return Err(Block::new(Reason::RegionNotFound, message));
    };
    let is_there = |node: &NodeRef| match &node.name {
        Some(named) => *named == region.node,
        None => {
            let selector = selector_of(Some(node));
            input.cluster.matching(&selector).any(|(matching, _)| matching == region.node)
        }
    };
    if node.is_some_and(|node| !is_there(node)) {
        let message = format!(
            "{what}MemoryRegion {name} is on node {}, and `node` does not name that one; leave `node` out",
            region.node
        );
        return Err(Block::new(Reason::RegionNotFound, message));
    }
    Ok(region)
}

/// The region as a task names it, as a source or as a destination.
pub fn for_task(memory: &MemoryRef, region: &RegionView, is_source: bool) -> TaskMemory {
    let unverified = is_source && region.unverified;
    TaskMemory { name: memory.name.clone(), uid: region.uid.clone(), unverified }
}

/// Whether its agent holds it ready. `instance` is the agent's present one.
fn ready(what: &str, memory: &MemoryRef, region: &RegionView, instance: &str) -> Result<(), Block> {
    let block = |reason, why: &str| {
        Err(Block::new(reason, format!("{what}MemoryRegion {} of node {}: {why}", memory.name, region.node)))
    };
    match &region.unready {
        Some((reason, why)) => block(*reason, why),
        None if region.instance != instance => {
            block(Reason::RegionNotReady, "the node's agent was started anew and has not taken it up yet")
        }
        None => Ok(()),
    }
}

/// What stands in the way of reading the region; else how many bytes a transfer moves.
///
/// # Errors
/// `InvalidSpec`, `RegionNotReady`, and what its agent says.
pub fn readable(
    input: &Input<'_>,
    memory: &MemoryRef,
    region: &RegionView,
    instance: &str,
) -> Result<u64, Block> {
    let name = &memory.name;
    let refused = |why: String| Err(Block::new(Reason::InvalidSpec, why));
    if !region.access.reads() {
        return refused(format!("source: MemoryRegion {name} has `spec.access` Writable and cannot be read"));
    }
    let destinations = &input.job.spec.destinations;
    let one = |place: &Place<_, _>, node: Option<&NodeRef>| {
        place.memory().is_some() || node.is_some_and(|node| node.name.is_some())
    };
    if region.external && !matches!(destinations.as_slice(), [to] if one(&to.place, to.node.as_ref())) {
        return refused(format!(
            "source: MemoryRegion {name} is external and serves one transfer, to one node: give one destination, with \
             `node.name` or `memory`"
        ));
    }
    ready("source: ", memory, region, instance)?;
    region.content.ok_or_else(|| {
        let why = "nothing was moved into it yet, or what was moved last did not arrive whole";
        Block::new(Reason::RegionNotReady, format!("source: MemoryRegion {name} holds nothing: {why}"))
    })
}

/// What stands in the way of writing so many bytes into the region.
///
/// # Errors
/// `InvalidSpec`, `DestinationExists`, `LengthMismatch`, `RegionNotReady`, and what its agent says.
pub fn writable(
    input: &Input<'_>,
    memory: &MemoryRef,
    region: &RegionView,
    instance: &str,
    bytes: Option<u64>,
) -> Result<(), Block> {
    let name = &memory.name;
    if !region.access.writes() {
        let why = format!("MemoryRegion {name} has `spec.access` Readable and cannot be written");
        return Err(Block::new(Reason::InvalidSpec, why));
    }
    if input.job.spec.write_policy == WritePolicy::FailIfExists {
        let why =
            format!("memory is always there, so MemoryRegion {name} cannot be written with FailIfExists");
        return Err(Block::new(Reason::DestinationExists, why));
    }
    ready("", memory, region, instance)?;
    match bytes {
        Some(bytes) if bytes > region.size || (region.external && bytes != region.size) => {
            let why = format!("the source has {bytes} bytes, MemoryRegion {name} has {}", region.size);
            Err(Block::new(Reason::LengthMismatch, why))
        }
        _ => Ok(()),
    }
}
