//! When a changed status is written: at once when something began, ended, stopped or went on; otherwise at most once a
//! second, and mere progress every 5 s. Pure.

use jiff::{SignedDuration, Timestamp};
use nixl_transfer_crds::{condition, job::TransferJobStatus};

/// What is to be done about a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It has not changed.
    Nothing,
    /// Write it.
    Now,
    /// Look again then.
    At(Timestamp),
}

const CHANGE: SignedDuration = SignedDuration::from_secs(1);
const PROGRESS: SignedDuration = SignedDuration::from_secs(5);

/// Compares the status that stands with the one that would be written.
pub fn due(
    before: &TransferJobStatus,
    after: &TransferJobStatus,
    last_write: Option<Timestamp>,
    now: Timestamp,
) -> Due {
    if before == after {
        return Due::Nothing;
    }
    if is_urgent(before, after) {
        return Due::Now;
    }
    let pause = if without_progress(before) == without_progress(after) { PROGRESS } else { CHANGE };
    match last_write.and_then(|last| last.checked_add(pause).ok()) {
        Some(at) if now < at => Due::At(at),
        _ => Due::Now,
    }
}

/// Conditions by type and status. That Ready goes from Unknown to False is no news: a quick job is done before it
/// could be told.
fn turning_points(status: &TransferJobStatus) -> Vec<(&str, bool)> {
    let mut points: Vec<_> = status
        .conditions
        .iter()
        .map(|condition| (condition.type_.as_str(), condition.status == "True"))
        .collect();
    points.sort_unstable();
    points
}

fn is_urgent(before: &TransferJobStatus, after: &TransferJobStatus) -> bool {
    before.run != after.run
        || before.source != after.source
        || before.clock != after.clock
        || condition::is_true(&before.conditions, condition::COMPLETE)
            != condition::is_true(&after.conditions, condition::COMPLETE)
        || turning_points(before) != turning_points(after)
}

fn without_progress(status: &TransferJobStatus) -> TransferJobStatus {
    let mut bare = status.clone();
    bare.progress = None;
    bare.transport = None;
    for destination in &mut bare.destinations {
        destination.bytes_done = 0;
    }
    bare
}
