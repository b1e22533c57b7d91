//! How the run stands after all hops were decided: conditions, phase, times, and the event when something ended. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nixl_transfer_crds::{
    Reason, TransferJob,
    condition::{self, Truth},
    job::{TransferJobStatus, status::Phase},
};

use super::{Halt, ends_by, note};
use crate::{
    fold,
    plan::{
        Input, Plan, deadline,
        hop::{State, cause::Cause, task},
        nodes::Wanted,
    },
};

/// Draws the conclusion from all hops: conditions, phase, times, and the event when something ended.
pub fn from_hops(
    input: &Input<'_>,
    status: &mut TransferJobStatus,
    hops: &[Wanted<'_>],
    states: &[State],
    halt: Option<Halt>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let job = input.job;
    status.observed_generation = job.metadata.generation;
    for condition in status.conditions.iter_mut().filter(|it| it.type_ == condition::COMPLETE) {
        condition.observed_generation = job.metadata.generation;
    }
    if let (Err(block), true) = (task::check(input), states.is_empty()) {
        return fail(status, &block.into(), job, now, plan);
    }
    let settled = |state: &State| state.is_served() || matches!(state, State::Failed(_));
    let ending = states.iter().filter(|state| matches!(state, State::Ending(_))).count();
    // What is to follow does not, while it is suspended, even if all have their copies.
    let follows_not = job.spec.follow && halt == Some(Halt::Suspended);
    if states.iter().all(State::is_served) && !follows_not {
        return complete(input, status, hops, now, plan);
    }
    match halt {
        Some(Halt::Suspended) if ending > 0 => {
            let message = format!("suspending: {ending} attempts are being ended");
            running(status, Phase::Suspended, Reason::Suspended, &message, job, now);
        }
        Some(Halt::Suspended) => suspend(status, job, now, plan),
        Some(Halt::TooLate(end)) => {
            let latest = deadline::after(end, deadline::ENDING_GRACE_SECONDS);
            let limit = job.spec.active_deadline_seconds.unwrap_or_default();
            let message = format!("the run took longer than `spec.activeDeadlineSeconds` ({limit} s)");
            if ending > 0 && input.now < latest {
                plan.wake(latest);
                running(status, Phase::Retrying, Reason::DeadlineExceeded, &message, job, now);
            } else {
                fail(status, &Cause::new(Reason::DeadlineExceeded, message), job, now, plan);
            }
        }
        None => {
            if let Some(end) = ends_by(job, status) {
                plan.wake(end);
            }
            let failed = || {
                hops.iter().zip(states).filter_map(|(hop, state)| match state {
                    State::Failed(cause) => Some((hop, cause)),
                    _ => None,
                })
            };
            match failed().next() {
                Some((hop, cause)) if states.iter().all(settled) => {
                    let count = failed().count();
                    let on = if hop.node.is_empty() { String::new() } else { format!(" on {}", hop.node) };
                    let message = format!(
                        "{count} of {} nodes failed; {}{on}: {}",
                        states.len(),
                        hop.destination.name,
                        cause.message
                    );
                    fail(status, &Cause::new(cause.reason, message), job, now, plan);
                }
                _ if plan.notes.iter().any(|note| note.action == "BeginRun") => {
                    // The first write says that nothing is known yet; what runs is said by the next.
                    status.phase = Some(Phase::Pending);
                }
                _ => {
                    let (phase, reason, message) = fold::words(hops, states);
                    running(status, phase, reason, &message, job, now);
                }
            }
        }
    }
}

fn set(
    status: &mut TransferJobStatus,
    kind: &str,
    truth: Truth,
    reason: Reason,
    message: &str,
    job: &TransferJob,
    now: Timestamp,
) {
    condition::set(&mut status.conditions, kind, truth, reason, message, job.metadata.generation, now);
}

fn remove(status: &mut TransferJobStatus, kinds: &[&str]) {
    kinds.iter().for_each(|kind| condition::remove(&mut status.conditions, kind));
}

fn running(
    status: &mut TransferJobStatus,
    phase: Phase,
    reason: Reason,
    message: &str,
    job: &TransferJob,
    now: Timestamp,
) {
    status.phase = Some(phase);
    set(status, condition::READY, Truth::False, reason, message, job, now);
    set(status, condition::RECONCILING, Truth::True, reason, message, job, now);
    remove(status, &[condition::SUSPENDED, condition::STALLED, condition::FAILED]);
}

fn suspend(status: &mut TransferJobStatus, job: &TransferJob, now: Timestamp, plan: &mut Plan) {
    let message = "`spec.suspend` is true; nothing runs";
    if !condition::is_true(&status.conditions, condition::SUSPENDED) {
        plan.notes.push(note(Reason::Suspended, "Suspend", "The run is suspended".into(), false));
    }
    status.phase = Some(Phase::Suspended);
    set(status, condition::READY, Truth::False, Reason::Suspended, message, job, now);
    set(status, condition::SUSPENDED, Truth::True, Reason::Suspended, message, job, now);
    remove(status, &[condition::RECONCILING, condition::STALLED, condition::FAILED]);
}

fn complete(
    input: &Input<'_>,
    status: &mut TransferJobStatus,
    hops: &[Wanted<'_>],
    now: Timestamp,
    plan: &mut Plan,
) {
    let job = input.job;
    let count = status.nodes.map_or(0, |nodes| nodes.succeeded);
    let has = if count == 1 { "1 node has the data".into() } else { format!("{count} nodes have the data") };
    let before = job.status.as_ref().filter(|before| before.run == status.run);
    let is = |kind| before.is_some_and(|before| condition::is_true(&before.conditions, kind));
    let (was_complete, was_ready) = (is(condition::COMPLETE), is(condition::READY));
    let (reason, message) = if hops.is_empty() {
        (Reason::Succeeded, "no node matches; those that come get their copy".into())
    } else if hops.iter().any(fold::is_unverified) {
        (Reason::Unverified, format!("{has}, as it was read; what it should be its owner has not said"))
    } else {
        (Reason::Succeeded, format!("{has}, verified"))
    };
    status.phase = Some(Phase::Complete);
    if was_complete {
        // What was said of the run at its end stays said; there is nothing new to measure.
        fold::keep_rate(status, before);
    } else {
        status.completion_time = Some(Time(now));
        fold::finished(status, input.now);
    }
    for kind in [condition::READY, condition::COMPLETE] {
        set(status, kind, Truth::True, reason, &message, job, now);
    }
    let abnormal = [condition::RECONCILING, condition::STALLED, condition::SUSPENDED, condition::FAILED];
    remove(status, &abnormal);
    let action = if was_complete { "CatchUp" } else { "CompleteRun" };
    plan.notes.extend((!was_ready).then(|| note(reason, action, message, false)));
}

fn fail(status: &mut TransferJobStatus, cause: &Cause, job: &TransferJob, now: Timestamp, plan: &mut Plan) {
    let known = condition::find(&status.conditions, condition::FAILED);
    let known = known.is_some_and(|known| known.message == condition::shortened(&cause.message));
    status.phase = Some(Phase::Failed);
    if !job.spec.follow {
        status.completion_time = Some(Time(now));
    }
    set(status, condition::READY, Truth::False, cause.reason, &cause.message, job, now);
    for kind in [condition::STALLED, condition::FAILED] {
        set(status, kind, Truth::True, cause.reason, &cause.message, job, now);
    }
    remove(status, &[condition::RECONCILING, condition::SUSPENDED]);
    // What follows goes on, and would say it each time.
    plan.notes.extend((!known).then(|| note(cause.reason, "FailRun", cause.message.clone(), true)));
}
