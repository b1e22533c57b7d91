//! Who sends, who receives, and what stands in the way of a hop: names, selectors, volumes, agents. Pure. What is special
//! about memory is in `regions`.

use jiff::Timestamp;
use kube::core::Selector;
use nixl_transfer_crds::{
    Reason, TransferTask, VolumeRef,
    endpoint::{Destination, MemoryRef, NodeRef, Place, SourceVolume},
    job::TransferJobStatus,
    reason::Class,
    task::TaskMemory,
};

use super::{
    Input, hop,
    path::{Overlap, overlap},
    regions,
};
use crate::cluster::{AgentView, NodeView, RegionView};

/// Something that stands in the way of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Why, from the closed list.
    pub reason: Reason,
    /// What it is about, and what to do.
    pub message: String,
}

impl Block {
    /// What is in the way; the reason's remedy is added.
    pub fn new(reason: Reason, what: String) -> Self {
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
    /// What is read there.
    pub place: Place<SourceVolume, TaskMemory>,
    /// How many bytes that are, where it is known.
    pub bytes: Option<u64>,
}

/// The receiving end of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiving {
    /// Instance of the agent.
    pub instance: String,
    /// Where it is put.
    pub place: Place<VolumeRef, TaskMemory>,
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
    /// Why there is no node, or no region.
    pub missing: Option<Block>,
    /// Whether it came by a selector that matches other nodes too.
    pub among_others: bool,
    /// The region that receives.
    pub region: Option<&'a RegionView>,
    /// The latest attempt in the current run.
    pub latest: Option<&'a TransferTask>,
}

/// The selector of a job's node; without one it matches nothing.
pub fn selector_of(node: Option<&NodeRef>) -> Selector {
    // The API server has checked it; what cannot be read matches nothing rather than everything.
    let nothing = || Selector::from_iter([kube::core::Expression::In("!".into(), Default::default())]);
    node.and_then(|node| node.selector.clone())
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
    let (mut hops, follow) = (Vec::new(), input.job.spec.follow);
    for destination in &input.job.spec.destinations {
        let hop = |node: &str, view: &NodeView, among_others| Wanted {
            destination,
            node: node.into(),
            uid: view.uid.clone(),
            missing: None,
            among_others,
            region: None,
            latest: latest(&destination.name, &|task| {
                Some(&task.spec.target.node_uid) == view.uid.as_ref() && task.spec.target.node_name == node
            }),
        };
        let nowhere = |node: &str, missing: Block| Wanted {
            destination,
            node: node.into(),
            uid: None,
            missing: Some(missing),
            among_others: false,
            region: None,
            // What a node had received before it left stays received.
            latest: latest(&destination.name, &|task| task.spec.target.node_name == node)
                .filter(|task| hop::has_succeeded(task)),
        };
        // What a region has received stays received, and what is under way to one that is gone is ended.
        let without_region = |missing: Block| {
            let latest = latest(&destination.name, &|_| true);
            let target = latest.map(|task| &task.spec.target);
            Wanted {
                node: target.map(|target| target.node_name.clone()).unwrap_or_default(),
                uid: target.map(|target| target.node_uid.clone()),
                latest,
                ..nowhere("", missing)
            }
        };
        let at_one = |name: &str| match input.cluster.node(name) {
            Some((node, view)) => hop(node, view, false),
            None => nowhere(name, Block::new(Reason::NodeNotFound, format!("there is no node {name}"))),
        };
        let node = destination.node.as_ref();
        match (&destination.place, node.and_then(|node| node.name.as_ref())) {
            (Place::Memory(memory), _) => hops.push(match regions::find(input, "", memory, node) {
                Ok(region) => Wanted { region: Some(region), ..at_one(&region.node) },
                Err(block) => without_region(block),
            }),
            (Place::Volume(_), Some(name)) => hops.push(at_one(name)),
            (Place::Volume(_), None) => {
                let selector = selector_of(node);
                let matching: Vec<_> = input.cluster.matching(&selector).collect();
                if matching.is_empty() {
                    let what = format!("the selector `{selector}` matches no node");
                    hops.push(nowhere("", Block::new(Reason::NoNodeMatches, what)));
                }
                let among_others = follow || matching.len() > 1;
                hops.extend(matching.iter().map(|(node, view)| hop(node, view, among_others)));
            }
        }
    }
    // A node that has left, or has not come yet, has nothing to be followed with.
    let is_away = |block: &Block| matches!(block.reason, Reason::NodeNotFound | Reason::NoNodeMatches);
    hops.retain(|hop| !(follow && hop.missing.as_ref().is_some_and(is_away)));
    hops
}

/// The agent of a node when it takes transfers.
fn taking<'a>(what: &str, node: &str, view: &'a NodeView) -> Result<&'a AgentView, Block> {
    view.ready_agent().map_err(|why| Block::new(Reason::AgentNotReady, format!("{what}node {node}: {why}")))
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
    let agent = taking(what, node, view)?;
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

/// The source of a run. A node that was chosen stays, unless it is gone before anything arrived anywhere.
pub fn source(input: &Input<'_>, status: &TransferJobStatus) -> Result<Chosen, Block> {
    let spec = &input.job.spec.source;
    match &spec.place {
        Place::Volume(volume) => volume_source(input, status, volume),
        Place::Memory(memory) => {
            let region = regions::find(input, "source: ", memory, spec.node.as_ref())?;
            let (node, view) = existing(input, "source: ", &region.node)?;
            let agent = taking("source: ", node, view)?;
            let bytes = regions::readable(input, memory, region, &agent.instance)?;
            Ok(Chosen {
                node: node.into(),
                instance: agent.instance.clone(),
                place: Place::Memory(regions::for_task(memory, region, true)),
                bytes: Some(bytes),
            })
        }
    }
}

impl Wanted<'_> {
    /// Whether the attempt went where the hop goes now: a region that was made again is another one.
    pub fn is_where(&self, task: &TransferTask) -> bool {
        match (self.region, task.spec.target.place.memory()) {
            (Some(region), Some(memory)) => region.uid == memory.uid,
            _ => true,
        }
    }
}

fn existing<'a>(input: &Input<'a>, what: &str, name: &str) -> Result<(&'a str, &'a NodeView), Block> {
    let found = input.cluster.node(name);
    found.ok_or_else(|| Block::new(Reason::NodeNotFound, format!("{what}there is no node {name}")))
}

fn volume_source(
    input: &Input<'_>,
    status: &TransferJobStatus,
    volume: &SourceVolume,
) -> Result<Chosen, Block> {
    let spec = &input.job.spec.source;
    let namespace = input.job.metadata.namespace.as_deref().unwrap_or_default();
    let serve = |node: &str, view: &NodeView| {
        serving("source: ", node, view, &volume.at.name, namespace, false).map(|agent| Chosen {
            node: node.into(),
            instance: agent.instance.clone(),
            place: Place::Volume(volume.clone()),
            bytes: None,
        })
    };
    let anything_arrived =
        || input.tasks.iter().any(|task| task.spec.run == status.run && hop::has_succeeded(task));
    let named = spec.node.as_ref().and_then(|node| node.name.as_ref());
    let fixed = match (named, &status.source) {
        (Some(name), _) => Some(name),
        // What is followed for long outlives its source's node: then another node that is said to have the data sends it.
        (None, Some(chosen))
            if !input.cluster.is_gone(&chosen.node) || (anything_arrived() && !input.job.spec.follow) =>
        {
            Some(&chosen.node)
        }
        (None, _) => None,
    };
    if let Some(name) = fixed {
        let (node, view) = existing(input, "source: ", name)?;
        return serve(node, view);
    }
    let selector = selector_of(spec.node.as_ref());
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

/// How the hop's end lies to the source's: in one volume of one node, or in memory.
pub fn endpoint(input: &Input<'_>, source: Option<&str>, hop: &Wanted<'_>) -> Overlap {
    match (&input.job.spec.source.place, &hop.destination.place) {
        (Place::Memory(from), Place::Memory(to)) if from == to => Overlap::Same,
        (Place::Volume(from), Place::Volume(to)) if source == Some(&hop.node) && from.at.name == to.name => {
            overlap(&from.at.path, &to.path)
        }
        _ => Overlap::Apart,
    }
}

/// The final refusal of a hop that ends where it starts.
pub fn same_endpoint(hop: &Wanted<'_>, how: Overlap) -> Block {
    let relation = if how == Overlap::Same { "the same as" } else { "inside, or around," };
    let what = match &hop.destination.place {
        Place::Volume(VolumeRef { name, path }) => format!("{path:?} in volume {name} on node {}", hop.node),
        Place::Memory(MemoryRef { name }) => format!("MemoryRegion {name}"),
    };
    Block::new(Reason::SameEndpoint, format!("{what} is {relation} the source"))
}

/// The receiving end, when nothing stands in the way on its side. `bytes` is what comes, where it is known.
pub fn target(input: &Input<'_>, hop: &Wanted<'_>, bytes: Option<u64>) -> Result<Receiving, Block> {
    if let Some(block) = &hop.missing {
        return Err(block.clone());
    }
    let namespace = input.job.metadata.namespace.as_deref().unwrap_or_default();
    let (node, view) = existing(input, "", &hop.node)?;
    let (agent, place) = match &hop.destination.place {
        Place::Volume(volume) => {
            let agent = serving("", node, view, &volume.name, namespace, true)?;
            (agent, Place::Volume(volume.clone()))
        }
        Place::Memory(memory) => {
            let agent = taking("", node, view)?;
            let region = regions::find(input, "", memory, hop.destination.node.as_ref())?;
            regions::writable(input, memory, region, &agent.instance, bytes)?;
            (agent, Place::Memory(regions::for_task(memory, region, false)))
        }
    };
    Ok(Receiving { instance: agent.instance.clone(), place })
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
