//! What `watch` shows: bars on a terminal, one line for a change elsewhere, and how it ended. Pure.

use jiff::{SignedDuration, Timestamp};
use nixl_transfer_crds::{
    TransferJob,
    condition::{self, READY},
    job::{
        TransferJobStatus,
        status::{DestinationState, DestinationStatus, Phase, Progress},
    },
};

use super::{
    jobs::of_phase,
    style::{Style, Tone, clean, width},
    words::{bytes, of_bytes, percent, rate, span, span_of},
};
use crate::next::{advice, is_current};

/// Nodes that have a bar of their own.
const MOST_BARS: usize = 10;
/// Columns of a bar, at least and at most, and what is taken where nobody knows a width.
const BAR: (usize, usize) = (10, 40);
const UNKNOWN_WIDTH: usize = 80;

/// The lines on a terminal, each no wider than it: they are drawn over.
pub fn frame(job: &TransferJob, style: Style, now: Timestamp) -> Vec<String> {
    let all = style.width.unwrap_or(UNKNOWN_WIDTH);
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let Some(status) = job.status.as_ref().filter(|_| is_current(job)) else {
        return vec![cut(&format!("{name}  waiting for the operator"), all)];
    };
    let phase = phase(status);
    let mut bars = Vec::new();
    if let Some(progress) = &status.progress {
        let mut said =
            vec![of_bytes(progress.bytes_done, progress.bytes_total), rate(progress.bytes_per_second)];
        said.extend(eta(progress).filter(|_| !over(status)).map(|eta| format!("ETA {eta}")));
        said.retain(|text| !text.is_empty());
        let percent = percent(progress.bytes_done, progress.bytes_total);
        bars.push(Bar { label: "all", percent, tone: of_phase(&phase), said: said.join("  ") });
    }
    let each = of_one_node(status);
    bars.extend(status.destinations.iter().take(MOST_BARS).map(|destination| of_node(destination, each)));
    let mut lines = vec![head(name, &phase, status, style, all, now)];
    lines.extend(drawn(&bars, style, all));
    let more = status.destinations.len().saturating_sub(MOST_BARS);
    if more > 0 {
        lines.push(cut(&format!("and {more} more nodes"), all));
    }
    let troubled = |it: &&DestinationStatus| it.message.is_some() && it.state != DestinationState::Succeeded;
    let trouble = status.destinations.iter().filter(|_| !over(status)).find(troubled);
    lines.extend(trouble.and_then(|it| it.message.as_deref()).map(|message| cut(message, all)));
    lines
}

/// One line for a change, for a pipe or a log.
pub fn line(job: &TransferJob, now: Timestamp) -> String {
    format!("{} {}", now.strftime("%Y-%m-%dT%H:%M:%SZ"), words(job))
}

/// What the line says: two equal ones in a row are no change.
pub fn words(job: &TransferJob) -> String {
    let Some(status) = job.status.as_ref().filter(|_| is_current(job)) else {
        return "waiting for the operator".into();
    };
    let mut said = vec![phase(status)];
    if let Some(progress) = &status.progress {
        said.push(progress.summary.clone());
        said.push(of_bytes(progress.bytes_done, progress.bytes_total));
        said.push(rate(progress.bytes_per_second));
        said.extend(eta(progress).filter(|_| !over(status)).map(|eta| format!("ETA {eta}")));
    }
    said.retain(|text| !text.is_empty());
    let message =
        condition::find(&status.conditions, READY).map(|ready| ready.message.as_str()).unwrap_or_default();
    clean(&if message.is_empty() { said.join(" ") } else { format!("{}: {message}", said.join(" ")) })
}

/// The last words about a job that is over.
pub fn verdict(job: &TransferJob, style: Style, now: Timestamp) -> String {
    let status = job.status.clone().unwrap_or_default();
    let phase = phase(&status);
    let took = status.start_time.as_ref().zip(status.completion_time.as_ref());
    let mut said = vec![
        condition::find(&status.conditions, READY).map(|ready| ready.message.clone()).unwrap_or_default(),
    ];
    if let (Some(Phase::Complete), Some(progress)) = (status.phase, &status.progress) {
        let took = took.map(|(start, end)| format!(" in {}", span_of(start.0, end.0))).unwrap_or_default();
        said.push(format!("{}{took}", bytes(progress.bytes_done)));
        said.push(rate(progress.bytes_per_second));
    }
    said.retain(|text| !text.is_empty());
    let mut text = style.item(0, &format!("{phase}:"), of_phase(&phase), &said.join(", "));
    if status.phase == Some(Phase::Failed) {
        for advice in advice(job, now) {
            text += &style.item(0, "-", Tone::Plain, &advice.sentence());
        }
    }
    text
}

fn phase(status: &TransferJobStatus) -> String {
    status.phase.map(|phase| format!("{phase:?}")).unwrap_or_default()
}

fn over(status: &TransferJobStatus) -> bool {
    status.phase.is_some_and(Phase::is_terminal)
}

/// When all bytes will be there at the present rate; nothing when that says nothing.
pub(super) fn eta(progress: &Progress) -> Option<String> {
    let left = progress.bytes_total.saturating_sub(progress.bytes_done);
    let rate = progress.bytes_per_second;
    (left > 0 && rate > 0)
        .then(|| span(SignedDuration::from_secs(left.div_euclid(rate) + i64::from(left % rate > 0))))
}

/// Bytes that each node gets. The status has the sum over those to which something is moved; the source's own node has the
/// data already, and is among the destinations without a byte.
fn of_one_node(status: &TransferJobStatus) -> Option<i64> {
    let total = status.progress.as_ref()?.bytes_total;
    let served = |it: &&DestinationStatus| it.state == DestinationState::Succeeded && it.bytes_done == 0;
    let shown = i64::try_from(status.destinations.len()).ok()?;
    let served = i64::try_from(status.destinations.iter().filter(served).count()).ok()?;
    let desired = status.nodes.map_or(shown, |nodes| nodes.desired.max(shown));
    Some(total / (desired - served).max(1))
}

fn head(
    name: &str,
    phase: &str,
    status: &TransferJobStatus,
    style: Style,
    all: usize,
    now: Timestamp,
) -> String {
    let end = status.completion_time.as_ref().filter(|_| over(status)).map_or(now, |time| time.0);
    let ran = status.start_time.as_ref().map(|start| span_of(start.0, end)).unwrap_or_default();
    let nodes =
        status.nodes.map(|nodes| format!("{}/{} nodes", nodes.succeeded, nodes.desired)).unwrap_or_default();
    let rest = format!("  run {}  {nodes}  {ran}", status.run);
    let line = cut(&format!("{name}  {phase}{rest}"), all);
    match line.strip_prefix(&format!("{name}  {phase}")) {
        Some(rest) => {
            format!("{}  {}{rest}", style.paint(Tone::Strong, name), style.paint(of_phase(phase), phase))
        }
        None => line,
    }
}

fn of_state(state: DestinationState) -> Tone {
    match state {
        DestinationState::Failed => Tone::Bad,
        DestinationState::Retrying => Tone::Poor,
        DestinationState::Active | DestinationState::Waiting => Tone::Plain,
        DestinationState::Succeeded => Tone::Good,
    }
}

struct Bar<'a> {
    label: &'a str,
    percent: i64,
    tone: Tone,
    said: String,
}

fn of_node(destination: &DestinationStatus, each: Option<i64>) -> Bar<'_> {
    let percent = match destination.state {
        DestinationState::Succeeded => 100,
        _ => percent(destination.bytes_done, each.unwrap_or(0)),
    };
    let reason = destination.reason.as_ref().map(|reason| format!("  {reason}")).unwrap_or_default();
    let said = format!("{:?}{reason}", destination.state);
    Bar { label: &destination.node, percent, tone: of_state(destination.state), said }
}

/// `gpu-b   [=========>          ]  45%  Active`, all bars of one length.
fn drawn(bars: &[Bar<'_>], style: Style, all: usize) -> Vec<String> {
    let longest = |of: fn(&Bar<'_>) -> usize| bars.iter().map(of).max().unwrap_or(0);
    let label_width = longest(|bar| width(bar.label)).min(all / 4);
    let said_width = longest(|bar| width(&bar.said));
    // Between them stand brackets, the number and the gaps.
    let columns = all.saturating_sub(label_width + said_width + 10).clamp(BAR.0, BAR.1);
    let line = |bar: &Bar<'_>| {
        let full = usize::try_from(bar.percent.clamp(0, 100)).unwrap_or(0) * columns / 100;
        let tip = if (1..columns).contains(&full) { ">" } else { "" };
        let filled = format!("{}{tip}", "=".repeat(full - tip.len()));
        let blank = " ".repeat(columns - filled.len());
        let label = cut(bar.label, label_width);
        let gap = " ".repeat(label_width - width(&label));
        let plain = format!("{label}{gap} [{filled}{blank}] {:>3}%  {}", bar.percent, bar.said);
        let painted = format!("[{}", style.paint(bar.tone, &filled));
        cut(&plain, all).replacen(&format!("[{filled}"), &painted, 1)
    };
    bars.iter().map(line).collect()
}

/// At most so many columns.
fn cut(text: &str, columns: usize) -> String {
    let text = clean(text);
    if width(&text) <= columns {
        return text;
    }
    let mut kept = String::new();
    for it in text.chars() {
        if width(&kept) + width(it.encode_utf8(&mut [0; 4])) >= columns {
            break;
        }
        kept.push(it);
    }
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eta_is_left_over_rate_or_nothing() {
        let of = |bytes_total, bytes_done, bytes_per_second| {
            eta(&Progress { bytes_total, bytes_done, bytes_per_second, ..Progress::default() })
        };
        assert_eq!(of(1000, 0, 100), Some("10s".into()));
        assert_eq!(of(1001, 0, 100), Some("11s".into()));
        assert_eq!(of(1000, 1000, 100), None);
        assert_eq!(of(1000, 0, 0), None);
        assert_eq!(of(i64::MAX, i64::MIN, i64::MAX), Some("1s".into()), "nothing overflows");
    }

    #[test]
    fn bars_are_as_wide_as_they_may_be() {
        let bars = |label: &'static str, said: &str| {
            [-1, 0, 1, 50, 99, 100].map(|percent| Bar { label, percent, tone: Tone::Bad, said: said.into() })
        };
        for (columns, label, said) in [(60, "gpu-b", "Active"), (20, "a-long-name-of-a-node", "größer")] {
            let lines = drawn(&bars(label, said), Style { width: Some(columns), colour: false }, columns);
            assert!(lines.iter().all(|line| width(line) <= columns && line.contains('[')), "{lines:#?}");
        }
        let lines = drawn(&bars("b", "x"), Style { width: Some(60), colour: false }, 60);
        let full = |line: &String| line.matches(['=', '>']).count();
        assert_eq!(lines.iter().map(full).collect::<Vec<_>>(), [0, 0, 0, 20, 39, 40]);
        assert_eq!(cut("grün und gut", 5), "grün…");
    }
}
