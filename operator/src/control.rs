//! The one thread that owns the world: takes in what was seen and answered, plans what has changed, hands the plans to
//! `apply`. Decides nothing itself and does no I/O but through the tasks it starts and ends.

mod gauges;
mod record;
mod writeouts;

use std::{
    cmp::Reverse,
    collections::HashSet,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::Resource;
use nixl_transfer_crds::{TransferJob, TransferTask, job::TransferJobStatus};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    apply::{self, Applied, Work, patch, writer::Writer},
    config::Config,
    events::Events,
    memory::Memory,
    metrics::Metrics,
    plan::{self, Input, Plan},
    schedule::{LONGEST_SLEEP, Rank, Schedule},
    serve::{Health, Watched},
    world::{Clock, Observation, World, labels::is_label},
};
use writeouts::WriteOuts;

/// What the thread is told.
#[derive(Debug)]
pub enum Message {
    /// A watch saw something.
    Observed(Watched, Box<Observation>),
    /// A watch was interrupted, or is alive again.
    Watching(Watched, bool),
    /// The API server answered one of our writes.
    Answered(Box<Observation>),
    /// All writes of a plan are done.
    Applied(Box<Applied>),
    /// This operator leads from now on, and all that its predecessors wrote was told before this.
    Leading,
}

/// Changes that come together are planned together.
const COALESCE: Duration = Duration::from_millis(2);
/// Leases are looked at, and gauges set, this often.
const TICK: Duration = Duration::from_secs(1);
/// How many messages are taken in before something is planned.
const BATCH: usize = 128;
/// How long writes under way may take to finish when the operator stops.
const FINISH: Duration = Duration::from_secs(10);

/// The thread's state.
pub struct Control {
    world: World,
    schedule: Schedule,
    memories: std::collections::HashMap<String, Memory>,
    unlisted: HashSet<usize>,
    leading: bool,
    metrics: Metrics,
    health: Arc<Health>,
    backoff_base: i64,
    rack_label: String,
    label_nodes: bool,
    applying: WriteOuts,
}

impl Control {
    /// A thread that knows nothing yet. With an election it plans nothing until it is told that it leads.
    pub fn new(
        writer: Writer,
        events: Events,
        metrics: Metrics,
        health: Arc<Health>,
        config: &Config,
        sender: mpsc::Sender<Message>,
    ) -> Self {
        Self {
            world: World::default(),
            schedule: Schedule::default(),
            memories: Default::default(),
            unlisted: Watched::ALL.map(|watched| watched as usize).into(),
            leading: !config.leader_elect,
            metrics,
            health,
            backoff_base: config.backoff_base_seconds,
            rack_label: config.rack_label.clone(),
            label_nodes: config.label_nodes,
            applying: WriteOuts::new(writer, config.writers.into(), events, sender),
        }
    }

    /// Works until `shutdown`, then lets the writes under way finish. False when some were still under way at the end.
    pub async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        shutdown: impl Future<Output = ()>,
    ) -> bool {
        tokio::pin!(shutdown);
        let mut tick = tokio::time::interval(TICK);
        let mut plan_at: Option<Instant> = None;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let next = plan_at.into_iter().chain(self.schedule.next_wake()).min();
            let next = next.unwrap_or_else(|| Instant::now() + TICK);
            tokio::select! {
                () = &mut shutdown => break,
                count = messages.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    batch.drain(..).for_each(|message| self.take(message));
                }
                _ = tick.tick() => {
                    self.world.tick(Instant::now());
                    // Reported by one operator, or every sum over them would be too large.
                    if self.leading {
                        gauges::set(&self.metrics, &self.world, &self.memories);
                    }
                }
                ended = self.applying.ended(), if !self.applying.is_empty() => {
                    if let Err(error) = ended {
                        // Its job would never be planned again. A fresh start reads everything back.
                        tracing::error!(%error, "a write-out ended unexpectedly; the operator ends");
                        return self.finish(messages).await;
                    }
                }
                () = tokio::time::sleep_until(next.into()) => {}
            }
            if !self.leading {
                self.stand_by();
                continue;
            }
            let now = Instant::now();
            self.schedule.wake(now);
            self.schedule.mark(self.world.take_dirty());
            if !self.unlisted.is_empty() || !(self.schedule.has_ready() || self.world.has_freed()) {
                plan_at = None;
                continue;
            }
            match plan_at {
                Some(at) if at <= now => {
                    plan_at = None;
                    self.round();
                }
                Some(_) => {}
                None => plan_at = Some(now + COALESCE),
            }
        }
        self.finish(messages).await
    }

    /// Follows what happens, plans nothing, and keeps what has ended as small as the leader does.
    fn stand_by(&mut self) {
        self.world.take_freed();
        for job in self.world.take_dirty() {
            self.world.rest(&job);
        }
    }

    /// Lets the writes under way finish, and reads their answers so that none of them waits for us. False when they did not.
    async fn finish(mut self, mut messages: mpsc::Receiver<Message>) -> bool {
        tracing::info!(under_way = self.applying.len(), "stopping");
        self.applying.stop();
        let drained = async {
            while !self.applying.is_empty() {
                tokio::select! {
                    _ = self.applying.ended() => {}
                    _ = messages.recv() => {}
                }
            }
        };
        let finished = tokio::time::timeout(FINISH, drained).await.is_ok();
        if !finished {
            tracing::warn!("writes were still under way; the next start goes on from what was written");
        }
        finished
    }

    fn take(&mut self, message: Message) {
        let clock = Clock { instant: Instant::now(), time: Timestamp::now() };
        match message {
            Message::Observed(watched, observation) => {
                let listed = observation.is_list();
                self.world.observe(*observation, clock);
                if listed && self.unlisted.remove(&(watched as usize)) && self.unlisted.is_empty() {
                    tracing::info!(
                        jobs = self.world.job_count(),
                        nodes = self.world.cluster.nodes.len(),
                        "everything listed"
                    );
                    self.health.set_listed();
                }
            }
            Message::Watching(Watched::Leases, alive) => {
                self.world.set_leases_watched(alive, clock.instant);
            }
            Message::Watching(..) => {}
            Message::Answered(observation) => self.world.observe(*observation, clock),
            Message::Applied(applied) => self.applied(*applied, clock),
            Message::Leading => {
                self.leading = true;
                self.world.touch_all();
            }
        }
    }

    fn applied(&mut self, applied: Applied, clock: Clock) {
        self.world.slots.unreserve(&applied.reserved);
        if applied.status_written
            && let Some(memory) = self.memories.get_mut(&applied.unit)
        {
            memory.last_write = Some(clock.time);
        }
        let Some(error) = applied.error else {
            self.schedule.succeeded(&applied.unit);
            return;
        };
        self.world.note_freed(&applied.reserved);
        let conflict = apply::is_conflict(&error);
        let reason = match &error {
            kube::Error::Api(status) if !status.reason.is_empty() => status.reason.clone(),
            kube::Error::Api(_) => "Refused".into(),
            _ => "Unreachable".into(),
        };
        self.metrics.errors.with_label_values(&[&reason]).inc();
        let job = self.world.job(&applied.unit).and_then(|job| job.metadata.name.clone());
        if conflict {
            tracing::debug!(job, %error, "something has changed meanwhile; planning again");
        } else {
            tracing::warn!(job, reason, %error, "a write failed; planning again after a pause");
        }
        self.schedule.failed(&applied.unit, conflict, clock.instant);
    }

    /// Plans what has changed, in fair order, and those that wait for slots that got free.
    fn round(&mut self) {
        let mut tried: HashSet<String> = HashSet::new();
        let mut jobs = self.schedule.take_ready();
        let freed = self.world.take_freed();
        loop {
            for node in &freed {
                if self.world.free_slots(node) > 0 {
                    jobs.extend(self.schedule.waiting_for(node, &tried));
                }
            }
            let mut ranks: Vec<Rank> =
                jobs.drain(..).filter(|job| tried.insert(job.clone())).map(|job| self.rank(job)).collect();
            if ranks.is_empty() {
                return;
            }
            ranks.sort();
            ranks.into_iter().for_each(|rank| self.consider(rank));
        }
    }

    fn rank(&self, job: String) -> Rank {
        let object = self.world.job(&job);
        let object = object.as_deref();
        let active = object.and_then(|job| job.status.as_ref()?.nodes).map_or(0, |nodes| nodes.active);
        let created = object.and_then(|job| job.metadata.creation_timestamp.as_ref());
        let created = created.map_or(0, |time| time.0.as_second());
        let priority = Reverse(object.map_or(0, |job| job.spec.priority));
        Rank { priority, active: u32::try_from(active).unwrap_or(0), created, job }
    }

    /// Plans one job and starts the writes.
    fn consider(&mut self, mut rank: Rank) {
        let now = Timestamp::now();
        let begun = Instant::now();
        let tasks = self.world.tasks_of(&rank.job);
        let tasks: Vec<&TransferTask> = tasks.iter().map(AsRef::as_ref).collect();
        let job = self.world.job(&rank.job);
        let job = job.as_deref().filter(|job| job.metadata.deletion_timestamp.is_none());
        let plan = match job {
            None if is_label(&rank.job) => {
                let unwanted = self.label_nodes && !self.world.is_wanted(&rank.job);
                if unwanted { plan::plan_unwanted(&rank.job, &self.world.cluster) } else { Plan::default() }
            }
            None => {
                self.memories.remove(&rank.job);
                plan::plan_deleted(&tasks, &self.world.cluster)
            }
            Some(job) => {
                let memory = self.memories.entry(rank.job.clone()).or_default();
                memory.observe(&tasks, job.status.as_ref().map_or(0, |status| status.run), now);
                let plan = plan::plan(&Input {
                    job,
                    tasks: &tasks,
                    cluster: &self.world.cluster,
                    slots: &self.world.slots,
                    memory,
                    open: self.world.open_count(),
                    backoff_base: self.backoff_base,
                    rack_label: &self.rack_label,
                    label_nodes: self.label_nodes,
                    now,
                });
                memory.set_queued(plan.queued.clone());
                plan
            }
        };
        self.metrics.reconcile.observe(begun.elapsed().as_secs_f64());
        rank.active = plan.active;
        let pause = plan.wake_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        self.schedule.wake_in(&rank.job, begun, pause.map(|pause| pause + COALESCE));
        if job.is_none() && tasks.is_empty() {
            self.schedule.forget(&rank.job);
        }
        if plan.is_empty() {
            // One that is woken in a minute or more is looked at once a minute, and is small until then.
            if pause.is_none_or(|pause| pause >= LONGEST_SLEEP) && self.world.rest(&rank.job) {
                self.memories.remove(&rank.job);
            }
            self.schedule.set_waiting(rank, plan.blocked_on);
            return;
        }
        let work = self.work(&rank.job, job, &tasks, &plan);
        record::record(&self.metrics, job, &plan);
        let reserved = plan.slots_taken();
        self.world.slots.reserve(&reserved);
        self.schedule.started(&rank.job);
        self.schedule.set_waiting(rank, plan.blocked_on);
        self.applying.push(work, reserved);
    }

    fn work(&self, unit: &str, job: Option<&TransferJob>, tasks: &[&TransferTask], plan: &Plan) -> Work {
        let status = job.zip(plan.status.as_ref()).and_then(|(job, after)| status_patch(job, after));
        let vanished = match (self.world.has_job(unit), tasks.first()) {
            (false, Some(task)) => {
                let namespace = task.metadata.namespace.clone().unwrap_or_default();
                Some((namespace, task.spec.job_ref.name.clone()))
            }
            _ => None,
        };
        Work {
            unit: unit.into(),
            job: job.map(|job| job.object_ref(&())),
            status,
            actions: plan.actions.clone(),
            notes: plan.notes.clone(),
            vanished,
        }
    }
}

/// The merge patch of a job with its new status; guarded by UID and version, because a status is decided about one
/// version of the spec.
fn status_patch(job: &TransferJob, after: &TransferJobStatus) -> Option<serde_json::Value> {
    let before = serde_json::to_value(job.status.clone().unwrap_or_default()).ok()?;
    let change = patch::between(&before, &serde_json::to_value(after).ok()?)?;
    let metadata = json!({"uid": job.metadata.uid, "resourceVersion": job.metadata.resource_version});
    Some(json!({"metadata": metadata, "status": change}))
}
