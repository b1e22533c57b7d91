//! The table of `get`: the columns of `kubectl get transferjobs`, from what the server says, whatever words it uses. Pure.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    style::{Style, Tone},
    table::{Cell, Column, Fit, table},
    words::span_of,
};

const COLUMNS: [Column; 12] = [
    ("NAMESPACE", Fit::Keep),
    ("NAME", Fit::Keep),
    ("PHASE", Fit::Keep),
    ("PROGRESS", Fit::Keep),
    ("RATE", Fit::Drop(1)),
    ("READY", Fit::Drop(0)),
    ("REASON", Fit::Drop(3)),
    ("AGE", Fit::Drop(2)),
    ("FROM", Fit::Drop(5)),
    ("TO", Fit::Wrap(12)),
    ("TRANSPORT", Fit::Drop(4)),
    ("MESSAGE", Fit::Beneath(40)),
];
/// The columns from here on are those of `-o wide`.
const WIDE: usize = 8;

/// What of the table is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown {
    /// With the column of namespaces.
    pub namespaces: bool,
    /// `-o wide`.
    pub wide: bool,
}

/// The table of these jobs.
pub fn jobs(jobs: &[Value], shown: Shown, style: Style, now: Timestamp) -> String {
    let from = usize::from(!shown.namespaces);
    let to = if shown.wide { COLUMNS.len() } else { WIDE };
    let rows: Vec<Vec<Cell>> = jobs.iter().map(|job| row(job, now)[from..to].to_vec()).collect();
    table(&COLUMNS[from..to], &rows, 0, style)
}

fn row(job: &Value, now: Timestamp) -> Vec<Cell> {
    let text = |pointer: &str| job.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let plain = |pointer: &str| Cell::plain(text(pointer));
    let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.and_then(|all| all.iter().find(|condition| condition["type"] == "Ready"));
    let of_ready = |field: &str| ready.and_then(|ready| ready[field].as_str()).unwrap_or_default();
    let created = text("/metadata/creationTimestamp").parse::<Timestamp>();
    let phase = text("/status/phase");
    vec![
        plain("/metadata/namespace"),
        plain("/metadata/name"),
        Cell::new(of_phase(phase), phase),
        plain("/status/progress/summary"),
        plain("/status/progress/rate"),
        Cell::new(of_truth(of_ready("status")), of_ready("status")),
        Cell::plain(of_ready("reason")),
        Cell::plain(created.map(|created| span_of(created, now)).unwrap_or_default()),
        plain("/status/source/node"),
        Cell::plain(receivers(job)),
        plain("/status/transport/network"),
        Cell::plain(of_ready("message")),
    ]
}

fn receivers(job: &Value) -> String {
    let all = job.pointer("/status/destinations").and_then(Value::as_array);
    let names: Vec<&str> = all.into_iter().flatten().filter_map(|it| it["node"].as_str()).collect();
    names.join(" ")
}

/// How good a phase is.
pub(super) fn of_phase(phase: &str) -> Tone {
    match phase {
        "Complete" => Tone::Good,
        "Failed" => Tone::Bad,
        "Retrying" | "Suspended" => Tone::Poor,
        _ => Tone::Plain,
    }
}

fn of_truth(truth: &str) -> Tone {
    if truth == "True" { Tone::Good } else { Tone::Plain }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_of_another_version_is_shown_as_far_as_it_goes() {
        let strange =
            json!({"metadata": {"name": "x"}, "status": {"phase": "Teleporting", "progress": {"rate": 7}}});
        let style = Style { width: None, colour: false };
        let text = jobs(&[strange], Shown::default(), style, Timestamp::UNIX_EPOCH);
        assert_eq!(text.lines().nth(1), Some("x      Teleporting"));
    }
}
