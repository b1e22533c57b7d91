//! A small world: the API server's objects, agents that do what agents do, an operator that plans and writes, and may
//! lose its memory between any two writes. Every write is checked against the rules that must always hold. What the agents
//! do is in `model::agents`, the rules are in `model::rules`, what users write is in `model::jobs`.

mod agents;
mod jobs;
mod rules;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nixl_transfer_crds::{
    TransferJob, TransferTask, condition,
    job::TransferJobStatus,
    names::NODE_LABEL_VALUE,
    task::{SideState, TransferTaskStatus},
};
use transfer_operator::{
    cluster::{AgentView, Cluster, Liveness, NodeView, VolumeView},
    memory::Memory,
    plan::{self, Action, Input, Plan},
    slots::Slots,
};

pub use jobs::{at, everywhere, job, path, redirect};

/// How the agent of a node behaves while it lives. All end what they are asked to end.
#[derive(Clone, Debug, PartialEq)]
pub enum Behaviour {
    /// Moves data.
    Works,
    /// Takes tasks and never gets anywhere.
    Hangs,
    /// Fails every task that it receives, for this reason.
    Fails(&'static str),
}

/// The world.
pub struct World {
    pub job: Option<TransferJob>,
    pub tasks: BTreeMap<String, TransferTask>,
    pub cluster: Cluster,
    pub behaviour: BTreeMap<String, Behaviour>,
    pub memory: Memory,
    pub now: Timestamp,
    /// Nodes that died, and when: nothing of them goes on, and their Leases are seen to be old after 60 s.
    dead: BTreeMap<String, Timestamp>,
    /// Nodes of which another job holds a slot, once per slot.
    pub others: Vec<String>,
    /// Whether the operator may label nodes.
    pub label_nodes: bool,
    pub log: Vec<String>,
    counter: u64,
}

impl World {
    /// Nodes a, b, c with working agents, all with `role: data`, and a job.
    pub fn new(job: TransferJob) -> Self {
        Self::with(job, &["a", "b", "c"])
    }

    /// Such a world with these nodes.
    pub fn with(job: TransferJob, nodes: &[&str]) -> Self {
        let mut world = Self {
            job: Some(job),
            tasks: BTreeMap::new(),
            cluster: Cluster::default(),
            behaviour: BTreeMap::new(),
            memory: Memory::default(),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            dead: BTreeMap::new(),
            others: Vec::new(),
            label_nodes: true,
            log: Vec::new(),
            counter: 0,
        };
        nodes.iter().for_each(|name| world.join(name));
        world
    }

    fn fresh(&mut self, what: &str) -> String {
        self.counter += 1;
        format!("{what}-{}", self.counter)
    }

    /// A node joins, or comes back as another node of that name.
    pub fn join(&mut self, name: &str) {
        let (uid, instance) = (self.fresh(name), self.fresh("instance"));
        let volume = |read_only, namespace: &str| VolumeView {
            read_only,
            allowed_namespaces: vec![namespace.to_string()],
        };
        let volumes = [
            ("v", volume(false, "*")),
            ("read-only", volume(true, "*")),
            ("private", volume(false, "other")),
        ];
        self.dead.remove(name);
        let view = NodeView {
            uid: Some(uid),
            labels: [("role".to_string(), "data".to_string())].into(),
            created: Some(self.now),
            agent: Some(AgentView {
                instance,
                unready: None,
                slots: 4,
                rdma: true,
                volumes: volumes.map(|(name, view)| (name.to_string(), view)).into(),
            }),
            lease: Liveness::Fresh,
        };
        self.cluster.nodes.insert(name.into(), view);
        self.behaviour.entry(name.into()).or_insert(Behaviour::Works);
    }

    /// Changes what the agent of a node says about itself.
    pub fn agent(&mut self, name: &str, change: impl FnOnce(&mut AgentView)) {
        if let Some(agent) = self.cluster.nodes.get_mut(name).and_then(|view| view.agent.as_mut()) {
            change(agent);
        }
    }

    /// The agent's Lease is not renewed any more, and that was seen.
    pub fn lose(&mut self, name: &str) {
        if let Some(view) = self.cluster.nodes.get_mut(name) {
            view.lease = Liveness::Gone;
        }
    }

    /// The node dies. Its peers notice at once, the API server's Leases do not.
    pub fn kill(&mut self, name: &str) {
        if self.cluster.nodes.contains_key(name) {
            self.dead.entry(name.into()).or_insert(self.now);
        }
    }

    /// Leases of dead nodes that are old by now are seen to be.
    fn expire(&mut self) {
        let old: Vec<String> = self
            .dead
            .iter()
            .filter(|(_, at)| self.now >= gone_at(**at))
            .map(|(name, _)| name.clone())
            .collect();
        for name in old {
            self.lose(&name);
        }
    }

    /// When the next Lease will be seen to be old.
    fn next_expiry(&self) -> Option<Timestamp> {
        self.dead.values().map(|at| gone_at(*at)).filter(|at| *at > self.now).min()
    }

    /// The agent is back: the same process, or a new one.
    pub fn find(&mut self, name: &str, restarted: bool) {
        let restarted = self.dead.remove(name).is_some() || restarted;
        let instance = self.fresh("instance");
        if let Some(view) = self.cluster.nodes.get_mut(name) {
            view.lease = Liveness::Fresh;
            if let Some(agent) = view.agent.as_mut().filter(|_| restarted) {
                agent.instance = instance;
            }
        }
    }

    /// The job's status.
    pub fn status(&self) -> TransferJobStatus {
        self.job.as_ref().and_then(|job| job.status.clone()).unwrap_or_default()
    }

    /// Whether a condition of the job is True.
    pub fn is(&self, kind: &str) -> bool {
        condition::is_true(&self.status().conditions, kind)
    }

    /// The reason of the condition Ready.
    pub fn reason(&self) -> String {
        condition::find(&self.status().conditions, condition::READY)
            .map(|condition| condition.reason.clone())
            .unwrap_or_default()
    }

    /// Changes the spec as a user does.
    pub fn edit(&mut self, change: impl FnOnce(&mut TransferJob)) {
        if let Some(job) = &mut self.job {
            change(job);
            job.metadata.generation = job.metadata.generation.map(|generation| generation + 1);
        }
    }

    /// Time passes.
    pub fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        self.expire();
    }

    /// What the operator would do now.
    pub fn plan(&mut self) -> Plan {
        let tasks: Vec<&TransferTask> = self.tasks.values().collect();
        let Some(job) = &self.job else { return plan::plan_deleted(&tasks, &self.cluster) };
        let mut slots = Slots::default();
        for (name, task) in &self.tasks {
            slots.update(name, task);
        }
        slots.reserve(&self.others);
        self.memory.observe(&tasks, job.status.as_ref().map_or(0, |status| status.run), self.now);
        let input = Input {
            job,
            tasks: &tasks,
            cluster: &self.cluster,
            slots: &slots,
            memory: &self.memory,
            open: 1,
            backoff_base: 10,
            rack_label: "rack",
            label_nodes: self.label_nodes,
            now: self.now,
        };
        let plan = plan::plan(&input);
        assert_eq!(plan, plan::plan(&input), "the same input gives the same plan");
        self.memory.set_queued(plan.queued.clone());
        plan
    }

    /// Plans once and writes; after so many writes the operator dies. Returns whether anything was written, and when
    /// to come back.
    pub fn operate(&mut self, writes: usize) -> (bool, Option<Timestamp>) {
        let plan = self.plan();
        let (wake_at, mut left) = (plan.wake_at, writes);
        let written = plan.status.is_some() || !plan.actions.is_empty();
        if let Some(status) = plan.status {
            if left == 0 {
                self.memory = Memory::default();
                return (written, wake_at);
            }
            left -= 1;
            self.write_status(*status);
        }
        let singly = plan.actions.into_iter().flat_map(|action| match action {
            Action::Create(tasks) => tasks.into_iter().map(|task| Action::Create(vec![task])).collect(),
            action => vec![action],
        });
        for action in singly.collect::<Vec<_>>() {
            if left == 0 {
                self.memory = Memory::default();
                return (written, wake_at);
            }
            left -= 1;
            self.write(action);
        }
        (written, wake_at)
    }

    fn write_status(&mut self, status: TransferJobStatus) {
        let before = self.status();
        assert!(status.run == before.run || status.run == before.run + 1, "runs are counted one by one");
        assert!(before != status, "a write that changes nothing");
        self.log.push(format!(
            "{} status run {} {:?} {}",
            self.now,
            status.run,
            status.phase,
            serde_json::to_string(&status.conditions).unwrap()
        ));
        self.memory.last_write = Some(self.now);
        let job = self.job.as_mut().unwrap();
        // Times lose what is below a second on their way through the API server.
        job.status = Some(serde_json::from_value(serde_json::to_value(&status).unwrap()).unwrap());
        let was = |kind| before.run == self.status().run && condition::is_true(&before.conditions, kind);
        let (was_ready, was_complete) = (was(condition::READY), was(condition::COMPLETE));
        if self.is(condition::READY) && !was_ready {
            self.check_complete();
        }
        let follows = self.job.as_ref().is_some_and(|job| job.spec.follow);
        let kstatus = [condition::RECONCILING, condition::STALLED].map(|kind| self.is(kind));
        assert!(kstatus != [true, true], "never reconciling and stalled");
        let (ready, over) = (self.is(condition::READY), self.is(condition::COMPLETE));
        // One that followed may be behind, also when it does not any more.
        assert!(ready == over || over && (follows || was_complete), "Ready exactly when Complete");
        assert!(over || !was_complete, "Complete, once True, stays");
        assert_eq!(self.is(condition::FAILED), self.is(condition::STALLED));
    }

    /// Carries an action out.
    pub fn write(&mut self, action: Action) {
        self.log.push(format!("{} {}", self.now, words(&action)));
        match action {
            Action::Create(tasks) => tasks.into_iter().for_each(|task| self.create(task)),
            Action::Cancel(task) => {
                let task = self.tasks.get_mut(&task.name).expect("cancels what exists");
                assert!(!task.spec.cancel, "cancelled twice");
                task.spec.cancel = true;
            }
            Action::Discard(task) => {
                let task = self.tasks.get_mut(&task.name).expect("discards what exists");
                assert!(!task.spec.discard, "discarded twice");
                assert_ne!(sides(task, true).0, Some(SideState::Succeeded), "there is nothing to discard");
                task.spec.discard = true;
            }
            Action::Verdict(task, verdict) => {
                let task = self.tasks.get_mut(&task.name).expect("judges what exists");
                let status = task.status.get_or_insert_with(TransferTaskStatus::default);
                assert!(status.verdict.is_none(), "a verdict is given once");
                status.verdict = Some(verdict);
            }
            Action::Delete(task) => {
                let now = self.now;
                let task = self.tasks.get_mut(&task.name).expect("deletes what exists");
                assert!(task.metadata.deletion_timestamp.is_none(), "deleted twice");
                task.metadata.deletion_timestamp = Some(Time(now));
            }
            Action::Release { task, keep, .. } => {
                assert!(keep.is_empty());
                let task = self.tasks.remove(&task.name).expect("releases what exists");
                assert!(task.metadata.deletion_timestamp.is_some());
                for (node, open) in halves(&task) {
                    assert!(!open || self.cluster.is_gone(&node), "released while {node} may still write");
                }
            }
            Action::Label(label) => {
                let view = self.cluster.nodes.get_mut(&label.node).expect("labels what exists");
                assert_eq!(view.uid.as_ref(), Some(&label.uid));
                let key = label.key;
                let changed = if label.holds {
                    view.labels.insert(key, NODE_LABEL_VALUE.into()).is_none()
                } else {
                    view.labels.remove(&key).is_some()
                };
                assert!(changed, "a write that changes nothing");
            }
            Action::Expire { .. } => {
                assert!(self.status().completion_time.is_some(), "a job is deleted after its end");
                self.job = None;
            }
        }
    }

    /// Lets operator and agents go on until nobody has anything to do, time passing as needed.
    pub fn settle(&mut self) {
        for _ in 0..2_000 {
            let acted = self.agents(true);
            let (written, wake_at) = self.operate(usize::MAX);
            if acted || written {
                continue;
            }
            match wake_at.into_iter().chain(self.next_expiry()).min() {
                None => return,
                Some(at) => {
                    assert!(at > self.now, "to come back at once is to spin: {:#?}", self.log);
                    self.now = at;
                    self.expire();
                }
            }
        }
        panic!("no end: {:#?}", &self.log[self.log.len().saturating_sub(60)..]);
    }
}

/// When the Lease of a node that died then is seen to be old.
fn gone_at(died: Timestamp) -> Timestamp {
    died + SignedDuration::from_secs(60)
}

/// Plans until nothing is written at this time.
pub fn catch_up(world: &mut World) {
    while world.operate(usize::MAX).0 {}
}

/// Node of each half, source first, and whether it is still open.
pub fn halves(task: &TransferTask) -> [(String, bool); 2] {
    let open = |state: Option<SideState>| !state.is_some_and(SideState::is_terminal);
    let (source, target) = sides(task, false);
    [(task.spec.source.node_name.clone(), open(source)), (task.spec.target.node_name.clone(), open(target))]
}

/// The states of one side and of the other.
fn sides(task: &TransferTask, target: bool) -> (Option<SideState>, Option<SideState>) {
    let status = task.status.as_ref();
    let from = status.and_then(|status| status.source.as_ref()).map(|half| half.state);
    let to = status.and_then(|status| status.target.as_ref()).map(|half| half.state);
    if target { (to, from) } else { (from, to) }
}

/// An action for the log: of a task that is created what tells it from others.
fn words(action: &Action) -> String {
    let Action::Create(tasks) = action else { return format!("{action:?}") };
    let short = tasks.iter().map(|task| {
        let spec = &task.spec;
        format!(
            "Create({} run {} attempt {} failures {} of {}: {} -> {}, relay {:?}, forward to {:?})",
            task.metadata.name.as_deref().unwrap_or_default(),
            spec.run,
            spec.attempt,
            spec.failures,
            spec.target.destination,
            spec.source.node_name,
            spec.target.node_name,
            spec.source.relay.as_ref().map(|relay| &relay.task_name),
            spec.target.forward_to,
        )
    });
    short.collect::<Vec<_>>().join(" ")
}
