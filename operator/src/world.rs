//! All that the operator knows, in one place that one thread owns: jobs, tasks, nodes, with the indexes that planning
//! needs. Takes what the watches say and, at once, what the API server answered to our own writes; the newer version
//! wins. No I/O; times are passed in.

pub mod jobs;
pub mod labels;
pub mod leases;
pub mod regions;
pub mod store;
pub mod tasks;
pub mod tombstones;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Instant,
};

use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::api::ObjectMeta;
use nixl_transfer_crds::{MemoryRegion, TransferJob, TransferNode, TransferTask, job::status::Phase, names};

use crate::{
    cluster::{AgentView, Cluster, Liveness, NodeView},
    slots::Slots,
};
use leases::Leases;
use store::Store;
use tombstones::Tombstones;

/// What a watch, or an answer to a write, says about one kind.
pub use follow::Change;

/// A change of any kind.
#[derive(Debug)]
pub enum Observation {
    /// A TransferJob.
    Job(Change<TransferJob>),
    /// A TransferTask.
    Task(Change<TransferTask>),
    /// A TransferNode.
    Agent(Change<TransferNode>),
    /// A MemoryRegion.
    Region(Change<MemoryRegion>),
    /// A core Node.
    Node(Change<Node>),
    /// A Lease in the system namespace; named as the node.
    Lease(Change<Lease>),
}

impl Observation {
    /// Whether it is all there is of its kind.
    pub fn is_list(&self) -> bool {
        // Kind by kind, so that a new one cannot be forgotten.
        match self {
            Self::Job(change) => matches!(change, Change::All(..)),
            Self::Task(change) => matches!(change, Change::All(..)),
            Self::Agent(change) => matches!(change, Change::All(..)),
            Self::Region(change) => matches!(change, Change::All(..)),
            Self::Node(change) => matches!(change, Change::All(..)),
            Self::Lease(change) => matches!(change, Change::All(..)),
        }
    }
}

/// The two clocks, read once per message.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Monotonic; decides about Leases.
    pub instant: Instant,
    /// Of the day.
    pub time: Timestamp,
}

/// What the operator knows.
#[derive(Debug)]
pub struct World {
    /// Jobs by UID.
    jobs: Store<TransferJob>,
    /// Tasks by namespace and name.
    tasks: Store<TransferTask>,
    tasks_of: HashMap<String, BTreeSet<String>>,
    /// The nodes.
    pub cluster: Cluster,
    /// Transfer slots.
    pub slots: Slots,
    leases: Leases,
    tombstones: Tombstones,
    /// UIDs of jobs that are under way.
    open: HashSet<String>,
    /// UIDs of jobs that follow what nodes there are, and have nothing to do now.
    following: HashSet<String>,
    /// Jobs, by UID, that label nodes, by the labels' keys.
    labellers: HashMap<String, String>,
    /// Jobs by namespace and phase.
    phases: HashMap<(String, Phase), usize>,
    dirty: HashSet<String>,
    freed: HashSet<String>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            jobs: Store::new(|job| &job.metadata),
            tasks: Store::new(|task| &task.metadata),
            tasks_of: HashMap::new(),
            cluster: Cluster::default(),
            slots: Slots::default(),
            leases: Leases::default(),
            tombstones: Tombstones::default(),
            open: HashSet::new(),
            following: HashSet::new(),
            labellers: HashMap::new(),
            phases: HashMap::new(),
            dirty: HashSet::new(),
            freed: HashSet::new(),
        }
    }
}

/// Versions of the API server are compared as numbers; one that is none is older than any.
pub fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn key(metadata: &ObjectMeta) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&metadata.namespace), part(&metadata.name))
}

fn uid(metadata: &ObjectMeta) -> String {
    metadata.uid.clone().unwrap_or_default()
}

impl World {
    /// Takes in a change.
    pub fn observe(&mut self, observation: Observation, clock: Clock) {
        match observation {
            Observation::Job(Change::Put(job)) => self.put_job(job),
            Observation::Job(Change::Gone(job)) => self.remove_job(&uid(&job)),
            Observation::Job(Change::All(jobs, as_of)) => {
                let listed: HashSet<String> = jobs.iter().map(|job| uid(&job.metadata)).collect();
                let as_of = as_of.parse().unwrap_or(0);
                let vanished = self
                    .jobs
                    .identities()
                    .filter(|(_, version, uid)| !listed.contains(*uid) && *version <= as_of);
                for uid in vanished.map(|(uid, ..)| uid.to_string()).collect::<Vec<_>>() {
                    self.remove_job(&uid);
                }
                jobs.into_iter().for_each(|job| self.put_job(job));
            }
            Observation::Task(Change::Put(task)) => self.put_task(task),
            Observation::Task(Change::Gone(task)) => self.remove_task(&key(&task), &uid(&task)),
            Observation::Task(Change::All(tasks, as_of)) => {
                let listed: HashSet<String> = tasks.iter().map(|task| uid(&task.metadata)).collect();
                let as_of = as_of.parse().unwrap_or(0);
                let vanished = self
                    .tasks
                    .identities()
                    .filter(|(_, version, uid)| !listed.contains(*uid) && *version <= as_of);
                let vanished = vanished.map(|(key, _, uid)| (key.to_string(), uid.to_string()));
                for (key, uid) in vanished.collect::<Vec<_>>() {
                    self.remove_task(&key, &uid);
                }
                tasks.into_iter().for_each(|task| self.put_task(task));
            }
            Observation::Agent(change) => self.nodes(
                change,
                |node| &node.metadata,
                |view, node| {
                    view.agent = node.map(AgentView::of);
                },
            ),
            Observation::Node(change) => self.nodes(
                change,
                |node| &node.metadata,
                |view, node| {
                    view.uid = node.and_then(|node| node.metadata.uid.clone());
                    view.created = node.and_then(|node| Some(node.metadata.creation_timestamp.as_ref()?.0));
                    view.labels = node.and_then(|node| node.metadata.labels.clone()).unwrap_or_default();
                },
            ),
            Observation::Region(change) => self.regions(change),
            Observation::Lease(change) => {
                self.leases.look(clock.instant);
                self.leases.observe(&change, clock);
                self.tick(clock.instant);
            }
        }
    }

    /// Applies a change of a per-node kind to the views of the nodes.
    fn nodes<K>(
        &mut self,
        change: Change<K>,
        metadata: impl Fn(&K) -> &ObjectMeta,
        apply: impl Fn(&mut NodeView, Option<&K>),
    ) {
        let name = |object: &K| metadata(object).name.clone().unwrap_or_default();
        match &change {
            Change::Put(object) => self.change_node(&name(object), |view| apply(view, Some(object))),
            Change::Gone(gone) => {
                self.change_node(gone.name.as_deref().unwrap_or_default(), |view| apply(view, None))
            }
            Change::All(objects, _) => {
                let mut absent: BTreeSet<String> = self.cluster.nodes.keys().cloned().collect();
                for object in objects {
                    absent.remove(&name(object));
                    self.change_node(&name(object), |view| apply(view, Some(object)));
                }
                absent.iter().for_each(|name| self.change_node(name, |view| apply(view, None)));
            }
        }
    }

    fn change_node(&mut self, name: &str, apply: impl FnOnce(&mut NodeView)) {
        let before = self.cluster.nodes.get(name).cloned().unwrap_or_default();
        let mut after = before.clone();
        apply(&mut after);
        if after == before {
            return;
        }
        self.labels_changed(&before, &after);
        if after == NodeView::default() {
            self.cluster.nodes.remove(name);
        } else {
            self.cluster.nodes.insert(name.into(), after);
        }
        let holders: Vec<String> = self.slots.holders(name).map(str::to_string).collect();
        let tasks = holders.iter().filter_map(|key| self.tasks.get(key));
        self.dirty.extend(tasks.map(|task| task.spec.job_ref.uid.clone()));
        self.dirty.extend(self.open.iter().chain(&self.following).cloned());
        self.freed.insert(name.into());
    }

    /// The watch of Leases was interrupted, or is alive again.
    pub fn set_leases_watched(&mut self, watched: bool, now: Instant) {
        self.leases.look(now);
        self.leases.set_watched(watched, now);
        self.tick(now);
    }

    /// Looks at the Leases again: time alone makes an agent gone.
    pub fn tick(&mut self, now: Instant) {
        self.leases.look(now);
        for (node, liveness) in self.leases.states(now) {
            let known = self.cluster.nodes.get(&node).map_or(Liveness::Gone, |view| view.lease);
            if known != liveness {
                tracing::info!(node, ?liveness, "agent");
                self.change_node(&node, |view| view.lease = liveness);
            }
        }
    }

    /// Counts every job as changed, and every one of which there are only tasks.
    pub fn touch_all(&mut self) {
        self.dirty.extend(self.jobs.identities().map(|(uid, ..)| uid.to_string()));
        self.dirty.extend(self.tasks_of.keys().cloned());
        self.touch_labels();
    }

    /// Jobs, by UID, that have changed or whose surroundings have, since the last call.
    pub fn take_dirty(&mut self) -> HashSet<String> {
        std::mem::take(&mut self.dirty)
    }

    /// Whether some node may have got a free slot.
    pub fn has_freed(&self) -> bool {
        !self.freed.is_empty()
    }

    /// Nodes that may have got a free slot since the last call.
    pub fn take_freed(&mut self) -> HashSet<String> {
        std::mem::take(&mut self.freed)
    }

    /// Says that a node may have a free slot.
    pub fn note_freed(&mut self, nodes: &[String]) {
        self.freed.extend(nodes.iter().cloned());
    }

    /// Free slots of a node.
    pub fn free_slots(&self, node: &str) -> u32 {
        let agent = self.cluster.nodes.get(node).and_then(|view| view.agent.as_ref());
        agent.map_or(0, |agent| agent.slots).saturating_sub(self.slots.used(node))
    }
}

/// How long a Lease may stay unchanged.
pub const LEASE_GONE: std::time::Duration = std::time::Duration::from_secs(names::LEASE_GONE_SECONDS as u64);
