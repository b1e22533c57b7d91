//! The tables of `describe`: conditions, nodes, tasks. Pure.

use jiff::Timestamp;
use nixl_transfer_crds::{
    TransferTask,
    job::{
        TransferJobStatus,
        status::{DestinationState, DestinationStatus},
    },
    task::SideState,
};

use super::super::{
    style::{Style, Tone},
    table::{Cell, Column, Fit, table},
    words::{bytes, of_bytes, span_of},
};

pub(super) fn conditions(status: &TransferJobStatus, style: Style, now: Timestamp) -> String {
    const COLUMNS: [Column; 5] = [
        ("TYPE", Fit::Keep),
        ("STATUS", Fit::Keep),
        ("REASON", Fit::Keep),
        ("AGE", Fit::Drop(0)),
        ("MESSAGE", Fit::Beneath(40)),
    ];
    let tone = |kind: &str, truth: &str| match (kind, truth) {
        ("Ready" | "Complete", "True") => Tone::Good,
        ("Stalled" | "Failed", "True") => Tone::Bad,
        ("Suspended", "True") => Tone::Poor,
        _ => Tone::Plain,
    };
    let rows = status.conditions.iter().enumerate().map(|(at, it)| {
        // Most say the same, and it can be long.
        let same = status.conditions[..at].iter().find(|other| other.message == it.message);
        let said = same.map_or_else(|| it.message.clone(), |other| format!("as {}", other.type_));
        vec![
            Cell::plain(&it.type_),
            Cell::new(tone(&it.type_, &it.status), &it.status),
            Cell::plain(&it.reason),
            Cell::plain(span_of(it.last_transition_time.0, now)),
            Cell::plain(said),
        ]
    });
    table(&COLUMNS, &rows.collect::<Vec<_>>(), 2, style)
}

pub(super) fn nodes(status: &TransferJobStatus, style: Style) -> String {
    const COLUMNS: [Column; 7] = [
        ("NODE", Fit::Keep),
        ("DESTINATION", Fit::Drop(1)),
        ("STATE", Fit::Keep),
        ("ATTEMPT", Fit::Drop(0)),
        ("BYTES", Fit::Drop(2)),
        ("REASON", Fit::Keep),
        ("MESSAGE", Fit::Beneath(40)),
    ];
    let row = |it: &DestinationStatus| {
        vec![
            Cell::plain(&it.node),
            Cell::plain(&it.name),
            Cell::new(of_state(it.state), format!("{:?}", it.state)),
            Cell::plain(it.attempt.to_string()),
            Cell::plain(bytes(it.bytes_done)),
            Cell::plain(it.reason.as_deref().unwrap_or_default()),
            Cell::plain(it.message.as_deref().unwrap_or_default()),
        ]
    };
    let mut text = table(&COLUMNS, &status.destinations.iter().map(row).collect::<Vec<_>>(), 2, style);
    let desired = status.nodes.map_or(0, |nodes| usize::try_from(nodes.desired).unwrap_or(0));
    if let Some(more) = desired.checked_sub(status.destinations.len()).filter(|more| *more > 0) {
        text +=
            &style.item(0, " ", Tone::Plain, &format!("and {more} more, which the status has no room for"));
    }
    text
}

fn of_state(state: DestinationState) -> Tone {
    match state {
        DestinationState::Failed => Tone::Bad,
        DestinationState::Retrying => Tone::Poor,
        DestinationState::Succeeded => Tone::Good,
        DestinationState::Active | DestinationState::Waiting => Tone::Plain,
    }
}

pub(super) fn tasks(tasks: &[TransferTask], style: Style) -> String {
    const COLUMNS: [Column; 10] = [
        ("FROM", Fit::Keep),
        ("TO", Fit::Keep),
        ("ATTEMPT", Fit::Keep),
        ("SENDS", Fit::Keep),
        ("RECEIVES", Fit::Keep),
        ("BYTES", Fit::Drop(2)),
        ("NETWORK", Fit::Drop(1)),
        ("REASON", Fit::Drop(3)),
        ("MESSAGE", Fit::Beneath(40)),
        ("TASK", Fit::Drop(0)),
    ];
    table(&COLUMNS, &tasks.iter().map(task).collect::<Vec<_>>(), 2, style)
}

fn task(task: &TransferTask) -> Vec<Cell> {
    let status = task.status.clone().unwrap_or_default();
    let (source, target) = (status.source.as_ref(), status.target.as_ref());
    let state = |state: Option<SideState>| match state {
        Some(state @ SideState::Failed) => Cell::new(Tone::Bad, format!("{state:?}")),
        Some(state @ SideState::Succeeded) => Cell::new(Tone::Good, format!("{state:?}")),
        Some(state) => Cell::plain(format!("{state:?}")),
        None => Cell::plain("-"),
    };
    let said = [
        status.verdict.as_ref().map(|verdict| (Some(&verdict.reason), Some(&verdict.message))),
        target.map(|half| (half.reason.as_ref(), half.message.as_ref())),
        source.map(|half| (half.reason.as_ref(), half.message.as_ref())),
    ];
    let (reason, message) =
        said.into_iter().flatten().find(|(reason, _)| reason.is_some()).unwrap_or_default();
    let moved = target.and_then(|half| Some(of_bytes(half.bytes_done?, half.bytes_total?)));
    vec![
        Cell::plain(&task.spec.source.node_name),
        Cell::plain(&task.spec.target.node_name),
        Cell::plain(task.spec.attempt.to_string()),
        state(source.map(|half| half.state)),
        state(target.map(|half| half.state)),
        Cell::plain(moved.unwrap_or_default()),
        Cell::plain(target.and_then(|half| half.transport.as_ref()).map_or("", |used| &used.network)),
        Cell::plain(reason.map_or("", String::as_str)),
        Cell::plain(message.map_or("", String::as_str)),
        Cell::plain(task.metadata.name.as_deref().unwrap_or_default()),
    ]
}
