//! When a changed status is written: at once when something began, ended, stopped or went on; otherwise at most once a
//! second, and mere progress every 5 s. With many open jobs these come less often, so that together they take a bounded
//! part of what the API server can write. Pure.

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
/// How many writes a second all open jobs share that tell nothing but what is under way. A burst needs the API server for
/// what makes it end.
const SHARED_PER_SECOND: i64 = 10;
/// Yet this often each one tells what it does.
const LONGEST: SignedDuration = SignedDuration::from_secs(60);

/// Compares the status that stands with the one that would be written; `open` jobs are under way in all.
pub fn due(
    before: &TransferJobStatus,
    after: &TransferJobStatus,
    last_write: Option<Timestamp>,
    open: usize,
    now: Timestamp,
) -> Due {
    if before == after {
        return Due::Nothing;
    }
    if is_urgent(before, after) {
        return Due::Now;
    }
    let pause = if without_progress(before) == without_progress(after) { PROGRESS } else { CHANGE };
    let share = SignedDuration::from_secs(i64::try_from(open).unwrap_or(i64::MAX) / SHARED_PER_SECOND);
    let pause = pause.max(share.min(LONGEST));
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

#[cfg(test)]
mod tests {
    use jiff::ToSpan;
    use nixl_transfer_crds::job::status::{Phase, Progress};

    use super::*;

    #[test]
    fn words_and_progress_wait_longer_the_more_jobs_are_open_and_turning_points_never() {
        let last: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let before =
            TransferJobStatus { run: 1, phase: Some(Phase::Pending), ..TransferJobStatus::default() };
        let words = TransferJobStatus { phase: Some(Phase::Preparing), ..before.clone() };
        let progress = TransferJobStatus { progress: Some(Progress::default()), ..before.clone() };
        let turning = TransferJobStatus { run: 2, ..before.clone() };
        let pause = |after: &TransferJobStatus, open| match due(&before, after, Some(last), open, last) {
            Due::At(at) => at.duration_since(last).as_secs(),
            Due::Now => 0,
            Due::Nothing => -1,
        };
        for (open, for_words, for_progress) in
            [(1, 1, 5), (19, 1, 5), (20, 2, 5), (500, 50, 50), (9000, 60, 60)]
        {
            assert_eq!(pause(&words, open), for_words, "{open} jobs");
            assert_eq!(pause(&progress, open), for_progress, "{open} jobs");
            assert_eq!(pause(&turning, open), 0, "{open} jobs");
            assert_eq!(pause(&before, open), -1, "{open} jobs");
        }
        assert_eq!(due(&before, &words, Some(last), 500, last + 50.seconds()), Due::Now);
        assert_eq!(due(&before, &words, None, 500, last), Due::Now, "this operator has not written yet");
    }
}
