//! The run as a whole: when one begins, when it is stopped, whether it is over. How it ends is in `run::conclude`. Pure.

pub mod conclude;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nixl_transfer_crds::{
    Reason, TransferJob,
    condition::{self, Truth},
    job::{
        TransferJobStatus,
        status::{Phase, RunClock},
    },
};

use super::{Note, deadline};

/// Why a run is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// `spec.suspend`.
    Suspended,
    /// `spec.activeDeadlineSeconds`; since when it is over.
    TooLate(Timestamp),
}

/// The status to go on from: the present one, or that of a new run when what is moved or the trigger has changed.
pub fn begin(
    job: &TransferJob,
    before: &TransferJobStatus,
    now: Timestamp,
    notes: &mut Vec<Note>,
) -> TransferJobStatus {
    let triggered = before.last_handled_trigger != job.spec.trigger;
    if before.run > 0 && !triggered && !job.spec.needs_run(&before.moved_hash) {
        return before.clone();
    }
    let generation = job.metadata.generation;
    let run = before.run + 1;
    let mut status = TransferJobStatus {
        observed_generation: generation,
        run,
        moved_hash: job.spec.moved_hash(),
        last_handled_trigger: job.spec.trigger.clone(),
        phase: Some(Phase::Pending),
        start_time: Some(Time(now)),
        clock: Some(RunClock { ran_seconds: 0, since: Some(Time(now)) }),
        ..TransferJobStatus::default()
    };
    let message = format!("run {run} begins");
    for (kind, truth) in [(condition::READY, Truth::Unknown), (condition::RECONCILING, Truth::True)] {
        condition::set(&mut status.conditions, kind, truth, Reason::Pending, &message, generation, now);
    }
    // That a new job begins its first run is said by its status, and an event costs a write.
    notes.push(Note {
        news: run > 1,
        ..note(Reason::Pending, "BeginRun", format!("Run {run} begins"), false)
    });
    status
}

/// Whether the run has ended for good. What follows nodes is never over.
pub fn is_over(job: &TransferJob, status: &TransferJobStatus) -> bool {
    !job.spec.follow && is_at_rest(status)
}

/// Whether the run has come to an end once.
pub fn has_ended(status: &TransferJobStatus) -> bool {
    condition::is_true(&status.conditions, condition::COMPLETE) || has_failed(status)
}

/// Whether it has, and nothing is under way, not even for a node that came later.
pub fn is_at_rest(status: &TransferJobStatus) -> bool {
    has_ended(status) && !condition::is_true(&status.conditions, condition::RECONCILING)
}

/// Whether the run has ended with a failure.
pub fn has_failed(status: &TransferJobStatus) -> bool {
    condition::is_true(&status.conditions, condition::FAILED)
}

/// After the end: a change of the spec that needs no run is still seen, or kstatus would wait for it for ever.
pub fn acknowledge(job: &TransferJob, status: &mut TransferJobStatus) {
    if status.observed_generation != job.metadata.generation {
        status.observed_generation = job.metadata.generation;
        for condition in &mut status.conditions {
            condition.observed_generation = job.metadata.generation;
        }
    }
}

/// Keeps the run's clock, and says whether the run is to be stopped.
pub fn halted(
    job: &TransferJob,
    status: &mut TransferJobStatus,
    now: Timestamp,
    notes: &mut Vec<Note>,
) -> Option<Halt> {
    let clock = status.clock.get_or_insert_with(RunClock::default);
    if job.spec.suspend {
        if let Some(since) = clock.since.take() {
            clock.ran_seconds += now.duration_since(since.0).as_secs().max(0);
        }
        return Some(Halt::Suspended);
    }
    if clock.since.is_none() {
        clock.since = Some(Time(now));
        condition::remove(&mut status.conditions, condition::SUSPENDED);
        notes.push(note(Reason::Pending, "Resume", "The run goes on".into(), false));
    }
    let end = ends_by(job, status)?;
    (now >= end).then_some(Halt::TooLate(end))
}

/// When the run must have ended.
pub fn ends_by(job: &TransferJob, status: &TransferJobStatus) -> Option<Timestamp> {
    let start = deadline::effective_start(status.clock.as_ref()?)?;
    let end = deadline::after(start, job.spec.active_deadline_seconds?);
    let is_complete = condition::is_true(&status.conditions, condition::COMPLETE);
    (!is_complete).then_some(end)
}

fn note(reason: Reason, action: &'static str, message: String, warning: bool) -> Note {
    Note { reason, action, message, warning, news: true, task: None }
}
