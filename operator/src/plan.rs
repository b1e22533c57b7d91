//! The decision: from a job, its tasks and a view of the cluster to what is to be written. Pure: no clock, no randomness,
//! no I/O; the same input always gives the same plan. One room per question: `run` (begin, suspend, resume, end),
//! `nodes` (who sends, who receives, what stands in the way), `regions` (the same of memory), `hop` (what became of a hop and what comes next), `start`
//! (those that can start now, together), `chain` (which of them send on to each other), `ledger` (slots), `deadline`
//! (clocks), `backoff` (pauses), `cleanup` (tasks that nobody needs any more), `expire` (jobs that nobody needs any more),
//! `labels` (of nodes that hold data).

pub mod backoff;
pub mod chain;
pub mod cleanup;
pub mod deadline;
pub mod expire;
pub mod hop;
pub mod labels;
pub mod ledger;
pub mod nodes;
pub mod path;
pub mod regions;
pub mod run;
pub mod start;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nixl_transfer_crds::{Reason, TransferJob, TransferTask, job::TransferJobStatus, task::status::Verdict};

use crate::{
    cluster::Cluster,
    fold::{self, due::Due},
    memory::Memory,
    slots::Slots,
};
use chain::links::Links;
use hop::{Decision, State};

/// Everything the decision rests on.
pub struct Input<'a> {
    /// The job.
    pub job: &'a TransferJob,
    /// All tasks that name the job's UID, of any run.
    pub tasks: &'a [&'a TransferTask],
    /// The nodes.
    pub cluster: &'a Cluster,
    /// Slots that are taken, by any job.
    pub slots: &'a Slots,
    /// What was seen of the job, and when.
    pub memory: &'a Memory,
    /// How many jobs are under way: they share the writes that are not urgent.
    pub open: usize,
    /// First pause before a retry, in seconds.
    pub backoff_base: i64,
    /// Label of a node that names its rack.
    pub rack_label: &'a str,
    /// Whether nodes may be labelled.
    pub label_nodes: bool,
    /// The time.
    pub now: Timestamp,
}

/// Writes to tasks, to nodes' labels, and to the job itself. Tasks are named; the UID guards against another task of that name.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start an attempt, or those of one chain: one write after the other, and none after one that failed.
    Create(Vec<TransferTask>),
    /// Ask both agents to end their halves.
    Cancel(TaskRef),
    /// Ask the target's agent to remove what it keeps for a further attempt.
    Discard(TaskRef),
    /// Say why the operator ends it.
    Verdict(TaskRef, Verdict),
    /// Delete it; the finalizer keeps it until it is released.
    Delete(TaskRef),
    /// Remove our finalizer and keep the others.
    Release {
        /// The task.
        task: TaskRef,
        /// The version that was decided about.
        resource_version: String,
        /// Finalizers of others.
        keep: Vec<String>,
    },
    /// Label a node, or take the label off, which comes before all else.
    Label(labels::Label),
    /// Delete the job.
    Expire {
        /// The version that was decided about.
        resource_version: String,
    },
}

/// A task that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

impl TaskRef {
    /// The reference to a task as the API server returned it.
    pub fn of(task: &TransferTask) -> Self {
        Self {
            namespace: task.metadata.namespace.clone().unwrap_or_default(),
            name: task.metadata.name.clone().unwrap_or_default(),
            uid: task.metadata.uid.clone().unwrap_or_default(),
        }
    }
}

/// What an event says; published after the writes succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Why, from the closed list.
    pub reason: Reason,
    /// What was done, for machines.
    pub action: &'static str,
    /// What happened.
    pub message: String,
    /// Whether someone should look.
    pub warning: bool,
    /// Whether it is news and becomes an event; every note is logged.
    pub news: bool,
    /// Name of the task it is about.
    pub task: Option<String>,
}

/// The decision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The whole new status, to be written before the actions; absent when nothing is due.
    pub status: Option<Box<TransferJobStatus>>,
    /// Writes to all else, in any order.
    pub actions: Vec<Action>,
    /// Events, last.
    pub notes: Vec<Note>,
    /// When to plan again if nothing happens.
    pub wake_at: Option<Timestamp>,
    /// Nodes without a free slot that hops wait for.
    pub blocked_on: Vec<String>,
    /// Hops (destination, node) that wait for a slot.
    pub queued: Vec<(String, String)>,
    /// Hops with an attempt under way, counting those that this plan starts.
    pub active: u32,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }

    /// Whether there is something to write.
    pub fn is_empty(&self) -> bool {
        self.status.is_none() && self.actions.is_empty() && self.notes.is_empty()
    }

    /// Nodes on which the plan takes a slot, once per slot.
    pub fn slots_taken(&self) -> Vec<String> {
        let mut nodes = Vec::new();
        for action in &self.actions {
            let Action::Create(tasks) = action else { continue };
            for task in tasks {
                nodes.push(task.spec.source.node_name.clone());
                nodes.push(task.spec.target.node_name.clone());
            }
        }
        nodes
    }
}

/// Decides what to write for a job that exists.
pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    let now = deadline::whole_seconds(input.now);
    let before = input.job.status.clone().unwrap_or_default();
    let mut status = run::begin(input.job, &before, now, &mut plan.notes);
    let (current, stale): (Vec<_>, Vec<_>) =
        input.tasks.iter().copied().partition(|task| task.spec.run == status.run);
    cleanup::former(&stale, input.cluster, &mut plan.actions);

    status.node_label = labels::named(input);
    if run::is_over(input.job, &status) {
        if std::mem::take(&mut status.following) {
            // It was no end until now: what is to go some time after it counts from here.
            status.completion_time = Some(Time(now));
        }
        cleanup::after_the_end(&current, &status, input.cluster, input.now, &mut plan);
        run::acknowledge(input.job, &mut status);
        expire::mark(input.job, &mut status);
        if status.node_label.is_some() {
            let hops = nodes::wanted(input, &current);
            labels::keep(input, &status, &hops, None, &mut plan.actions);
        }
        settle(input, &before, status, &mut plan);
        expire::delete(input.job, &before, input.now, &mut plan);
        return plan;
    }

    status.following = input.job.spec.follow;
    let halt = run::halted(input.job, &mut status, now, &mut plan.notes);
    let source = nodes::source(input, &status);
    if let Ok(source) = &source {
        status.source = Some(nixl_transfer_crds::job::status::ChosenSource { node: source.node.to_string() });
    }
    let wanted = nodes::wanted(input, &current);
    cleanup::superseded(&current, &wanted, input.cluster, &mut plan.actions);

    let links = Links::of(input.tasks, input.cluster);
    let context =
        hop::Context { input, status: &status, source: &source, links: &links, halt, now: input.now };
    let decisions: Vec<Decision> = wanted.iter().map(|hop| hop::decide(hop, &context, &mut plan)).collect();
    let states: Vec<State> = start::all(&wanted, decisions, &context, &mut plan);
    plan.active = states.iter().filter(|state| state.is_active()).count() as u32;

    labels::keep(input, &status, &wanted, Some(&states), &mut plan.actions);
    let too_late = matches!(halt, Some(run::Halt::TooLate(_))) && run::has_failed(&before);
    cleanup::given_up(&wanted, &states, too_late, &mut plan.actions);
    fold::progress(&mut status, &wanted, &states, input.memory);
    run::conclude::from_hops(input, &mut status, &wanted, &states, halt, now, &mut plan);
    expire::mark(input.job, &mut status);
    let fell_back = fold::fallback::note(&before, &status, &wanted, input.cluster);
    settle(input, &before, status, &mut plan);
    // As long as it is not written it would be news again.
    plan.notes.extend(fell_back.filter(|_| plan.status.is_some()));
    plan
}

/// Decides what to do with the tasks of a job that is gone or being deleted.
pub fn plan_deleted(tasks: &[&TransferTask], cluster: &Cluster) -> Plan {
    let mut plan = Plan::default();
    cleanup::orphaned(tasks, cluster, &mut plan.actions);
    plan
}

/// Takes a label off every node: no job wants it.
pub fn plan_unwanted(label: &str, cluster: &Cluster) -> Plan {
    let mut plan = Plan::default();
    labels::unwanted(label, cluster, &mut plan.actions);
    plan
}

/// Puts the status into the plan when its write is due, else plans to come back.
fn settle(input: &Input<'_>, before: &TransferJobStatus, after: TransferJobStatus, plan: &mut Plan) {
    match fold::due::due(before, &after, input.memory.last_write, input.open, input.now) {
        Due::Nothing => {}
        Due::Now => {
            plan.notes.extend(expire::ignored(before, &after));
            plan.status = Some(Box::new(after));
        }
        Due::At(at) => plan.wake(at),
    }
}
