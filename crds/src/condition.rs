//! Conditions as kstatus reads them: set, kept when nothing changed, removed when abnormal ones no longer hold. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::reason::Reason;

/// Types of the conditions of a TransferJob.
pub const READY: &str = "Ready";
/// The operator works on it; removed otherwise.
pub const RECONCILING: &str = "Reconciling";
/// It will not go on by itself; removed otherwise.
pub const STALLED: &str = "Stalled";
/// The run moved everything; the digests were equal.
pub const COMPLETE: &str = "Complete";
/// The run gave up a destination; removed otherwise.
pub const FAILED: &str = "Failed";
/// `spec.suspend` is set and everything has stopped; removed otherwise.
pub const SUSPENDED: &str = "Suspended";

/// Messages longer than this are cut: a status is for reading.
const MAX_MESSAGE: usize = 1024;

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Not known yet.
    Unknown,
}

impl Truth {
    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        }
    }
}

/// Sets a condition. `lastTransitionTime` moves only when the status changes.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    truth: Truth,
    reason: Reason,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let found = conditions.iter().position(|condition| condition.type_ == kind);
    let last_transition_time = match found {
        Some(at) if conditions[at].status == truth.as_str() => conditions[at].last_transition_time.clone(),
        _ => Time(now),
    };
    let condition = Condition {
        type_: kind.into(),
        status: truth.as_str().into(),
        reason: reason.as_str().into(),
        message: shortened(message),
        observed_generation: generation,
        last_transition_time,
    };
    match found {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}

/// Removes a condition; abnormal ones are removed, not set False.
pub fn remove(conditions: &mut Vec<Condition>, kind: &str) {
    conditions.retain(|condition| condition.type_ != kind);
}

/// The condition of that type.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether a condition of that type is True.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == "True")
}

/// The message, cut at a character so that it fits a status.
pub fn shortened(message: &str) -> String {
    if message.len() <= MAX_MESSAGE {
        return message.into();
    }
    let mut end = MAX_MESSAGE - '…'.len_utf8();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let (early, late) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
        let mut conditions = Vec::new();
        set(&mut conditions, READY, Truth::False, Reason::Queued, "", Some(1), early);
        set(&mut conditions, READY, Truth::False, Reason::Transferring, "", Some(1), late);
        assert_eq!(conditions[0].last_transition_time.0, early);
        set(&mut conditions, READY, Truth::True, Reason::Succeeded, "", Some(1), late);
        assert_eq!(conditions[0].last_transition_time.0, late);
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let cut = shortened(&"ü".repeat(2_000));
        assert!(cut.len() <= MAX_MESSAGE && cut.ends_with('…'));
    }
}
