//! What the plan sees of the cluster: nodes, their agents and whether these are alive, memory regions. Built by `world`, read by `plan`.
//! Pure; the clock that decides about a Lease is in `world::leases`.

mod region;

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::core::{Selector, SelectorExt};
use nixl_transfer_crds::node::{TransferNode, VolumeStatus, devices::LinkState};
pub use region::RegionView;

/// Slots of an agent that reports none.
const DEFAULT_SLOTS: u32 = 4;

/// What the operator has seen of an agent's Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Liveness {
    /// Renewed not long ago.
    Fresh,
    /// Not renewed since this operator looked, but it has not looked for long: nothing new is given to the agent, and
    /// nothing is taken from it.
    Unproven,
    /// No change for longer than an agent may commit without one, or no Lease.
    #[default]
    Gone,
}

/// A volume as far as planning needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeView {
    /// Whether it may only be read.
    pub read_only: bool,
    /// Namespaces that may use it; `*` means all.
    pub allowed_namespaces: Vec<String>,
}

impl VolumeView {
    /// Whether jobs of the namespace may use it.
    pub fn allows(&self, namespace: &str) -> bool {
        self.allowed_namespaces.iter().any(|allowed| allowed == "*" || allowed == namespace)
    }
}

/// An agent as its TransferNode shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentView {
    /// UUID of its start.
    pub instance: String,
    /// Why it takes no new transfer; absent when it does.
    pub unready: Option<String>,
    /// Hops that may run at once.
    pub slots: u32,
    /// Whether a port of an RDMA device is active.
    pub rdma: bool,
    /// Published volumes by name.
    pub volumes: BTreeMap<String, VolumeView>,
}

impl AgentView {
    /// What planning needs of a TransferNode. Free space and the like are left out, so that they wake nobody.
    pub fn of(node: &TransferNode) -> Self {
        let status = node.status.clone().unwrap_or_default();
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        let unready = if node.spec.unschedulable {
            Some("it is drained (`spec.unschedulable` of its TransferNode)".to_string())
        } else if status.instance.is_empty() {
            Some("its agent has not reported yet".into())
        } else {
            match ready {
                None => Some("its agent has not reported yet".into()),
                Some(condition) if condition.status != "True" => {
                    Some(format!("its agent is not ready: {}", condition.message))
                }
                Some(_) => None,
            }
        };
        let volume = |volume: VolumeStatus| {
            let view =
                VolumeView { read_only: volume.read_only, allowed_namespaces: volume.allowed_namespaces };
            (volume.name, view)
        };
        Self {
            instance: status.instance,
            rdma: status.nics.iter().any(|nic| nic.port.is_some() && nic.state == LinkState::Active),
            unready,
            slots: status
                .slots
                .map_or(DEFAULT_SLOTS, |budget| u32::try_from(budget.total.max(0)).unwrap_or(u32::MAX)),
            volumes: status.volumes.into_iter().map(volume).collect(),
        }
    }
}

/// A node: the core object, its agent, its Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// UID of the core Node; absent when there is none.
    pub uid: Option<String>,
    /// Labels of the core Node.
    pub labels: BTreeMap<String, String>,
    /// When the core Node was made.
    pub created: Option<Timestamp>,
    /// Its agent; absent when there is no TransferNode.
    pub agent: Option<AgentView>,
    /// Its agent's Lease.
    pub lease: Liveness,
}

impl NodeView {
    /// Whether the agent can no longer do anything to a file: the node was deleted, or the Lease has not changed for too
    /// long. That its TransferNode was deleted ends no agent.
    pub fn is_gone(&self) -> bool {
        self.uid.is_none() || self.lease == Liveness::Gone
    }

    /// The agent when it takes new transfers, else why it does not.
    pub fn ready_agent(&self) -> Result<&AgentView, String> {
        let Some(agent) = &self.agent else { return Err("it has no agent (no TransferNode)".into()) };
        match (&agent.unready, self.lease) {
            (_, Liveness::Gone) => Err("its agent has not renewed its Lease".into()),
            (_, Liveness::Unproven) => {
                Err("its agent has not renewed its Lease since the operator started".into())
            }
            (Some(why), Liveness::Fresh) => Err(why.clone()),
            (None, Liveness::Fresh) => Ok(agent),
        }
    }
}

/// All nodes by name.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Every name that a Node, a TransferNode or a Lease has.
    pub nodes: BTreeMap<String, NodeView>,
    /// Memory regions by namespace and name.
    pub regions: BTreeMap<(String, String), RegionView>,
}

impl Cluster {
    /// The node, when its core object exists.
    pub fn node(&self, name: &str) -> Option<(&str, &NodeView)> {
        let (name, view) = self.nodes.get_key_value(name)?;
        view.uid.as_ref().map(|_| (name.as_str(), view))
    }

    /// Existing nodes that the selector matches, by name.
    pub fn matching(&self, selector: &Selector) -> impl Iterator<Item = (&str, &NodeView)> {
        self.nodes
            .iter()
            .filter(|(_, view)| view.uid.is_some() && selector.matches(&view.labels))
            .map(|(name, view)| (name.as_str(), view))
    }

    /// Whether the agent of that node is gone; an unknown node has none.
    pub fn is_gone(&self, name: &str) -> bool {
        self.nodes.get(name).is_none_or(NodeView::is_gone)
    }
}
