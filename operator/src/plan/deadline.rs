//! The three clocks: of the run (stopped by suspension), of what waits, of what stands still. Pure.

use jiff::{SignedDuration, Timestamp};
use nixl_transfer_crds::{
    TransferTask,
    job::status::RunClock,
    task::{SideState, TransferTaskStatus},
};

/// The agents watch progress themselves; the operator steps in only when they have not for this much longer.
const PROGRESS_GRACE_SECONDS: i64 = 30;
/// When all bytes are there a target still syncs them, or compares them with what it had: a worker may take so long for
/// a file, during which no byte is counted. In a chain it may still send the last of them on.
const STORING_SECONDS: i64 = 600;
/// How long after the run's deadline the agents may take to end what they were asked to end.
pub const ENDING_GRACE_SECONDS: i64 = 60;

/// The API server keeps whole seconds; what is computed from a time must not change when it is read back.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// `time` plus so many seconds; the end of time when that is beyond it.
pub fn after(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// When the run would have begun, had it never been suspended; absent while it is suspended.
pub fn effective_start(clock: &RunClock) -> Option<Timestamp> {
    clock.since.as_ref().map(|since| after(since.0, -clock.ran_seconds))
}

/// When the task's halves last changed their states, or it got its verdict; its creation when none did.
pub fn last_transition(task: &TransferTask) -> Option<Timestamp> {
    let none = TransferTaskStatus::default();
    let status = task.status.as_ref().unwrap_or(&none);
    [
        status.source.as_ref().and_then(|half| half.last_transition_time.as_ref()),
        status.target.as_ref().and_then(|half| half.last_transition_time.as_ref()),
        status.verdict.as_ref().map(|verdict| &verdict.time),
        task.metadata.creation_timestamp.as_ref(),
    ]
    .into_iter()
    .flatten()
    .map(|time| time.0)
    .max()
}

/// When the task's target half last changed its state; the task's creation when it does not say.
pub fn target_transition(task: &TransferTask) -> Option<Timestamp> {
    let half = task.status.as_ref().and_then(|status| status.target.as_ref());
    let changed = half.and_then(|half| half.last_transition_time.as_ref());
    changed.or(task.metadata.creation_timestamp.as_ref()).map(|time| time.0)
}

/// When a task whose halves have not both got ready must have; absent when they have.
pub fn pending_until(task: &TransferTask) -> Option<Timestamp> {
    let ready = |state: Option<SideState>| state.is_some_and(|state| state >= SideState::Prepared);
    let status = task.status.as_ref();
    let source = status.and_then(|status| status.source.as_ref()).map(|half| half.state);
    let target = status.and_then(|status| status.target.as_ref()).map(|half| half.state);
    if ready(source) && ready(target) {
        return None;
    }
    let created = task.metadata.creation_timestamp.as_ref()?;
    Some(after(created.0, task.spec.deadlines.pending_seconds))
}

/// When a task that has moved nothing since `still_since` must have, its chain having last changed at `changed`; absent
/// when nothing moves yet.
pub fn progress_until(
    task: &TransferTask,
    still_since: Option<Timestamp>,
    changed: Option<Timestamp>,
) -> Option<Timestamp> {
    let target = task.status.as_ref()?.target.as_ref()?;
    if target.state < SideState::Prepared || target.state.is_terminal() {
        return None;
    }
    // All are ready and nothing moves: that, too, is standing still, counted from the last change of a half.
    let since = still_since?.max(changed?);
    let all_there = target.bytes_total.is_some_and(|total| target.bytes_done.unwrap_or(0) >= total);
    let storing = if all_there { STORING_SECONDS } else { 0 };
    Some(after(since, task.spec.deadlines.progress_seconds + PROGRESS_GRACE_SECONDS + storing))
}
