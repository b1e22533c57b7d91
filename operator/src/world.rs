//! All that the operator knows, in one place that one thread owns: jobs, tasks, nodes, with the indexes that planning
//! needs. Takes what the watches say and, at once, what the API server answered to our own writes; the newer version
//! wins. No I/O; times are passed in.

pub mod leases;
pub mod tombstones;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Instant,
};

use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::api::ObjectMeta;
use nixl_transfer_crds::{TransferJob, TransferNode, TransferTask, names};

use crate::{
    cluster::{AgentView, Cluster, Liveness, NodeView},
    plan::run,
    slots::Slots,
};
use leases::Leases;
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
    /// A core Node.
    Node(Change<Node>),
    /// A Lease in the system namespace; named as the node.
    Lease(Change<Lease>),
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
#[derive(Debug, Default)]
pub struct World {
    /// Jobs by UID.
    pub jobs: HashMap<String, TransferJob>,
    /// Tasks by namespace and name.
    tasks: HashMap<String, TransferTask>,
    tasks_of: HashMap<String, BTreeSet<String>>,
    /// The nodes.
    pub cluster: Cluster,
    /// Transfer slots.
    pub slots: Slots,
    leases: Leases,
    tombstones: Tombstones,
    /// UIDs of jobs whose run has not ended.
    open: HashSet<String>,
    dirty: HashSet<String>,
    freed: HashSet<String>,
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
                    .iter()
                    .filter(|(uid, job)| !listed.contains(*uid) && version(&job.metadata) <= as_of);
                for uid in vanished.map(|(uid, _)| uid.clone()).collect::<Vec<_>>() {
                    self.remove_job(&uid);
                }
                jobs.into_iter().for_each(|job| self.put_job(job));
            }
            Observation::Task(Change::Put(task)) => self.put_task(task),
            Observation::Task(Change::Gone(task)) => self.remove_task(&key(&task), &uid(&task)),
            Observation::Task(Change::All(tasks, as_of)) => {
                let listed: HashSet<String> = tasks.iter().map(|task| uid(&task.metadata)).collect();
                let as_of = as_of.parse().unwrap_or(0);
                let vanished = self.tasks.iter().filter(|(_, task)| {
                    !listed.contains(&uid(&task.metadata)) && version(&task.metadata) <= as_of
                });
                for (key, uid) in
                    vanished.map(|(key, task)| (key.clone(), uid(&task.metadata))).collect::<Vec<_>>()
                {
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
                    view.labels = node.and_then(|node| node.metadata.labels.clone()).unwrap_or_default();
                },
            ),
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
        if after == NodeView::default() {
            self.cluster.nodes.remove(name);
        } else {
            self.cluster.nodes.insert(name.into(), after);
        }
        let holders: Vec<String> = self.slots.holders(name).map(str::to_string).collect();
        for task in holders.iter().filter_map(|key| self.tasks.get(key)) {
            self.dirty.insert(task.spec.job_ref.uid.clone());
        }
        self.dirty.extend(self.open.iter().cloned());
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

    fn put_job(&mut self, mut job: TransferJob) {
        let uid = uid(&job.metadata);
        let older = |known: &TransferJob| version(&known.metadata) >= version(&job.metadata);
        if self.tombstones.contains(&uid) || self.jobs.get(&uid).is_some_and(older) {
            return;
        }
        // Nobody here reads these, and they are most of an object's size.
        job.metadata.managed_fields = None;
        job.metadata.annotations = None;
        if job.status.as_ref().is_some_and(run::is_over) {
            self.open.remove(&uid);
        } else {
            self.open.insert(uid.clone());
        }
        self.dirty.insert(uid.clone());
        self.jobs.insert(uid, job);
    }

    fn remove_job(&mut self, uid: &str) {
        self.tombstones.bury(uid);
        self.jobs.remove(uid);
        self.open.remove(uid);
        self.dirty.insert(uid.into());
    }

    fn put_task(&mut self, mut task: TransferTask) {
        let (key, uid) = (key(&task.metadata), uid(&task.metadata));
        let older = |known: &TransferTask| version(&known.metadata) >= version(&task.metadata);
        if self.tombstones.contains(&uid) || self.tasks.get(&key).is_some_and(older) {
            return;
        }
        task.metadata.managed_fields = None;
        // Capabilities: the operator has no use for them and must not be able to show them.
        if let Some(status) = &mut task.status {
            if let Some(source) = &mut status.source {
                source.agent_metadata = None;
            }
            if let Some(target) = &mut status.target {
                target.rdma_metadata = None;
            }
        }
        let job = task.spec.job_ref.uid.clone();
        self.freed.extend(self.slots.update(&key, &task));
        self.tasks_of.entry(job.clone()).or_default().insert(key.clone());
        self.tasks.insert(key, task);
        self.dirty.insert(job);
    }

    fn remove_task(&mut self, key: &str, uid: &str) {
        self.tombstones.bury(uid);
        if self.tasks.get(key).is_some_and(|task| task.metadata.uid.as_deref() != Some(uid)) {
            return; // another task by now
        }
        let Some(task) = self.tasks.remove(key) else { return };
        self.freed.extend(self.slots.remove(key, &task));
        let job = task.spec.job_ref.uid;
        if let Some(keys) = self.tasks_of.get_mut(&job) {
            keys.remove(key);
            if keys.is_empty() {
                self.tasks_of.remove(&job);
            }
        }
        self.dirty.insert(job);
    }

    /// The tasks of a job, of any run.
    pub fn tasks_of(&self, job: &str) -> Vec<&TransferTask> {
        self.tasks_of.get(job).into_iter().flatten().filter_map(|key| self.tasks.get(key)).collect()
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

    /// How many jobs there are whose run has not ended.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Jobs whose run has not ended.
    pub fn open_jobs(&self) -> impl Iterator<Item = &TransferJob> {
        self.open.iter().filter_map(|uid| self.jobs.get(uid))
    }
}

/// How long a Lease may stay unchanged.
pub const LEASE_GONE: std::time::Duration = std::time::Duration::from_secs(names::LEASE_GONE_SECONDS as u64);
