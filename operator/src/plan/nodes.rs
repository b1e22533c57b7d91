//! Who sends, who receives, and what stands in the way of a hop: names, selectors, volumes, agents. Pure.

use jiff::Timestamp;
use kube::core::Selector;
use nixl_transfer_crds::{
    Reason, TransferTask,
    endpoint::{Destination, NodeRef},
    job::TransferJobStatus,
    reason::Class,
};

use super::{
    Input, hop,
    path::{Overlap, overlap},
};
use crate::cluster::{AgentView, NodeView};

/// Something that stands in the way of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Why, from the closed list.
    pub reason: Reason,
    /// What it is about, and what to do.
    pub message: String,
}

impl Block {
    fn new(reason: Reason, what: String) -> Self {
        Self { reason, message: format!("{what}. {}", reason.entry().remedy) }
    }

    /// Whether waiting does not help.
    pub fn is_final(&self) -> bool {
        self.reason.class() == Class::Final
    }
}

/// The source of a run: its node and the agent on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Name of the node.
    pub node: String,
    /// Instance of its agent.
    pub instance: String,
}

/// A hop that the job wants, with what became of it so far.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The destination in the spec.
    pub destination: &'a Destination,
    /// Name of the node; empty when a selector matches none.
    pub node: String,
    /// UID of the node; absent when there is no such node.
    pub uid: Option<String>,
    /// Why there is no node.
    pub missing: Option<Block>,
    /// Whether it came by a selector that matches other nodes too.
    pub among_others: bool,
    /// The latest attempt in the current run.
    pub latest: Option<&'a TransferTask>,
}

fn selector_of(node: &NodeRef) -> Selector {
    // The API server has checked it; what cannot be read matches nothing rather than everything.
    let nothing = || Selector::from_iter([kube::core::Expression::In("!".into(), Default::default())]);
    node.selector
        .clone()
        .map_or_else(nothing, |selector| Selector::try_from(selector).unwrap_or_else(|_| nothing()))
}

/// The hops that the job wants now, in the order of the spec and then of the nodes' names.
pub fn wanted<'a>(input: &Input<'a>, current: &[&'a TransferTask]) -> Vec<Wanted<'a>> {
    let latest = |destination: &str, same_node: &dyn Fn(&TransferTask) -> bool| {
        let of_hop = current
            .iter()
            .copied()
            .filter(|task| task.spec.target.destination == destination && same_node(task));
        of_hop.max_by_key(|task| task.spec.attempt)
    };
    let mut hops = Vec::new();
    for destination in &input.job.spec.destinations {
        let hop = |node: &str, view: &NodeView, among_others| Wanted {
            destination,
            node: node.into(),
            uid: view.uid.clone(),
            missing: None,
            among_others,
            latest: latest(&destination.name, &|task| {
                Some(&task.spec.target.node_uid) == view.uid.as_ref() && task.spec.target.node_name == node
            }),
        };
        let nowhere = |node: &str, reason, what: String| Wanted {
            destination,
            node: node.into(),
            uid: None,
            missing: Some(Block::new(reason, what)),
            among_others: false,
            // What a node had received before it left stays received.
            latest: latest(&destination.name, &|task| task.spec.target.node_name == node)
                .filter(|task| hop::has_succeeded(task)),
        };
        match &destination.node.name {
            Some(name) => hops.push(match input.cluster.node(name) {
                Some((node, view)) => hop(node, view, false),
                None => nowhere(name, Reason::NodeNotFound, format!("there is no node {name}")),
            }),
            None => {
                let selector = selector_of(&destination.node);
                let matching: Vec<_> = input.cluster.matching(&selector).collect();
                if matching.is_empty() {
                    let what = format!("the selector `{selector}` matches no node");
                    hops.push(nowhere("", Reason::NoNodeMatches, what));
                }
                hops.extend(matching.iter().map(|(node, view)| hop(node, view, matching.len() > 1)));
            }
        }
    }
    hops
}

/// The agent of a node when it takes transfers and publishes the volume for the job's namespace.
fn serving<'a>(
    what: &str,
    node: &str,
    view: &'a NodeView,
    volume: &str,
    namespace: &str,
    writes: bool,
) -> Result<&'a AgentView, Block> {
    let agent = view
        .ready_agent()
        .map_err(|why| Block::new(Reason::AgentNotReady, format!("{what}node {node}: {why}")))?;
    let Some(published) = agent.volumes.get(volume) else {
        let names = agent.volumes.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(Block::new(
            Reason::VolumeNotFound,
            format!("{what}node {node} publishes no volume {volume:?}, only [{names}]"),
        ));
    };
    if !published.allows(namespace) {
        return Err(Block::new(
            Reason::VolumeForbidden,
            format!("{what}volume {volume:?} of node {node} is not published for namespace {namespace}"),
        ));
    }
    if writes && published.read_only {
        return Err(Block::new(
            Reason::VolumeReadOnly,
            format!("{what}volume {volume:?} of node {node} is read-only"),
        ));
    }
    Ok(agent)
}

/// The node that sends. One that was chosen stays, unless it is gone before anything arrived anywhere.
pub fn source(input: &Input<'_>, status: &TransferJobStatus) -> Result<Chosen, Block> {
    let spec = &input.job.spec.source;
    let namespace = input.job.metadata.namespace.as_deref().unwrap_or_default();
    let serve = |node: &str, view: &NodeView| {
        serving("source: ", node, view, &spec.volume.at.name, namespace, false)
            .map(|agent| Chosen { node: node.into(), instance: agent.instance.clone() })
    };
    let anything_arrived =
        || input.tasks.iter().any(|task| task.spec.run == status.run && hop::has_succeeded(task));
    let fixed = match (&spec.node.name, &status.source) {
        (Some(name), _) => Some(name),
        (None, Some(chosen)) if !input.cluster.is_gone(&chosen.node) || anything_arrived() => {
            Some(&chosen.node)
        }
        (None, _) => None,
    };
    if let Some(name) = fixed {
        let (node, view) = input
            .cluster
            .node(name)
            .ok_or_else(|| Block::new(Reason::NodeNotFound, format!("source: there is no node {name}")))?;
        return serve(node, view);
    }
    let selector = selector_of(&spec.node);
    let mut able = Vec::new();
    let mut nearest: Option<Block> = None;
    for (node, view) in input.cluster.matching(&selector) {
        match serve(node, view) {
            Ok(chosen) => able.push((input.slots.used(node), chosen)),
            // What can still come is worth more words than what is refused for good.
            Err(block) if nearest.as_ref().is_none_or(Block::is_final) => nearest = Some(block),
            Err(_) => {}
        }
    }
    able.into_iter()
        .min_by(|(a, left), (b, right)| a.cmp(b).then_with(|| left.node.cmp(&right.node)))
        .map_or_else(
            || {
                let nothing = || {
                    Block::new(
                        Reason::NoNodeMatches,
                        format!("source: the selector `{selector}` matches no node"),
                    )
                };
                Err(nearest.unwrap_or_else(nothing))
            },
            |(_, chosen)| Ok(chosen),
        )
}

/// How the hop's end lies to the source's, when both are on one node and volume.
pub fn endpoint(input: &Input<'_>, source: Option<&str>, hop: &Wanted<'_>) -> Overlap {
    let (from, to) = (&input.job.spec.source.volume.at, &hop.destination.volume);
    if source != Some(&hop.node) || from.name != to.name {
        return Overlap::Apart;
    }
    overlap(&from.path, &to.path)
}

/// The final refusal of a hop that ends where it starts.
pub fn same_endpoint(hop: &Wanted<'_>, how: Overlap) -> Block {
    let relation = if how == Overlap::Same { "the same as" } else { "inside, or around," };
    Block::new(
        Reason::SameEndpoint,
        format!(
            "{:?} in volume {} on node {} is {relation} the source",
            hop.destination.volume.path, hop.destination.volume.name, hop.node
        ),
    )
}

/// The receiving agent's instance, when nothing stands in the way on its side.
pub fn target(input: &Input<'_>, hop: &Wanted<'_>) -> Result<String, Block> {
    if let Some(block) = &hop.missing {
        return Err(block.clone());
    }
    let namespace = input.job.metadata.namespace.as_deref().unwrap_or_default();
    let Some((node, view)) = input.cluster.node(&hop.node) else {
        return Err(Block::new(Reason::NodeNotFound, format!("there is no node {}", hop.node)));
    };
    serving("", node, view, &hop.destination.volume.name, namespace, true).map(|agent| agent.instance.clone())
}

/// An attempt that still does something where this hop would read or write: of an earlier run, or meant for a node of
/// the same name that is gone.
pub fn unfinished_before(input: &Input<'_>, run: i64, source: &str, hop: &Wanted<'_>) -> Option<Block> {
    let in_the_way = |task: &&&TransferTask| {
        let target = &task.spec.target;
        match task.spec.run == run {
            false => target.node_name == hop.node || target.node_name == source,
            true => {
                target.node_name == hop.node
                    && target.destination == hop.destination.name
                    && Some(&target.node_uid) != hop.uid.as_ref()
            }
        }
    };
    let task = input.tasks.iter().filter(in_the_way).find(|task| !hop::is_over(task, input.cluster))?;
    Some(Block {
        reason: Reason::Pending,
        message: format!(
            "waits until attempt {} of run {} on node {} has ended",
            task.spec.attempt, task.spec.run, task.spec.target.node_name
        ),
    })
}

/// When the job's hops may wait no longer, counted from `since`.
pub fn waiting_until(input: &Input<'_>, since: Timestamp) -> Timestamp {
    super::deadline::after(since, input.job.spec.pending_deadline_seconds)
}
