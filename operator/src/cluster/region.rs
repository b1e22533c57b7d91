//! A MemoryRegion as far as planning needs it. Pure.

use jiff::Timestamp;
use nixl_transfer_crds::{
    MemoryRegion, Reason,
    condition::{READY, find},
    region::{Access, Held},
};

/// A region: where it is, and what stands in the way of its use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionView {
    /// Which one of its name.
    pub uid: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// The node whose memory it is.
    pub node: String,
    /// What jobs may do with it.
    pub access: Access,
    /// Whether a workload exposes it by itself: it serves one transfer.
    pub external: bool,
    /// Whether its owner says nothing about its content, and nobody else can.
    pub unverified: bool,
    /// Why nothing can be moved now; absent when it is ready.
    pub unready: Option<(Reason, String)>,
    /// Instance of the agent that says so.
    pub instance: String,
    /// Bytes of it.
    pub size: u64,
    /// Bytes that a transfer out of it moves; absent when it holds nothing that is defined.
    pub content: Option<u64>,
}

impl RegionView {
    /// What planning needs of a region.
    pub fn of(region: &MemoryRegion) -> Self {
        let none = Default::default();
        let status = region.status.as_ref().unwrap_or(&none);
        let current = status.observed_generation == region.metadata.generation;
        let unready = match find(&status.conditions, READY) {
            Some(ready) if current && ready.status == "True" => None,
            Some(ready) if current => {
                let reason = Reason::parse(&ready.reason).unwrap_or(Reason::RegionNotReady);
                Some((reason, ready.message.clone()))
            }
            _ => Some((Reason::RegionNotReady, "its node's agent has not taken it up yet".into())),
        };
        let bytes = |count: i64| u64::try_from(count).unwrap_or(0);
        let size = status.size.map_or(0, bytes);
        let content = match region.spec.held {
            // Before something was moved there it holds zeros that nobody means.
            Held::Agent(_) => status.content.as_ref().map(|content| bytes(content.bytes)),
            Held::Workload(_) | Held::External(_) => Some(size),
        };
        Self {
            uid: region.metadata.uid.clone().unwrap_or_default(),
            created: region.metadata.creation_timestamp.as_ref().map(|time| time.0),
            node: region.spec.node.name.clone(),
            access: region.spec.access,
            external: matches!(region.spec.held, Held::External(_)),
            unverified: matches!(&region.spec.held, Held::External(external) if external.digest.is_none()),
            unready,
            instance: status.instance.clone().unwrap_or_default(),
            size,
            content,
        }
    }
}
