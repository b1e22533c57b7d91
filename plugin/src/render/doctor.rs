//! What `doctor` prints. Pure.

use super::{
    style::{Style, Tone},
    table::{Cell, Column, Fit, table},
    words::{bytes, count},
};
use crate::diagnosis::{Finding, Grade, NodeFacts, Report, spoken_link};

/// Nodes that are named for one finding.
const MOST_NODES: usize = 6;

/// The report as text.
pub fn doctor(report: &Report, style: Style) -> String {
    const COLUMNS: [Column; 11] = [
        ("NODE", Fit::Keep),
        ("READY", Fit::Keep),
        ("AGENT", Fit::Drop(0)),
        ("NIXL", Fit::Keep),
        ("BACKENDS", Fit::Wrap(10)),
        ("NETWORK", Fit::Keep),
        ("LINK", Fit::Keep),
        ("MEMLOCK", Fit::Keep),
        ("SLOTS", Fit::Drop(2)),
        ("GPUS", Fit::Drop(1)),
        ("VOLUMES", Fit::Wrap(10)),
    ];
    let mut text = style.field("API server", Tone::Plain, &report.server);
    if !report.nodes.is_empty() {
        text.push('\n');
        text += &table(&COLUMNS, &report.nodes.iter().map(node).collect::<Vec<_>>(), 0, style);
    }
    let section = |title: &str| format!("\n{}\n", style.paint(Tone::Strong, &format!("{title}:")));
    text += &section("Found");
    for found in &report.findings {
        text += &finding(found, style);
    }
    if !report.limits.is_empty() {
        text += &section("What would limit a transfer");
        for limit in &report.limits {
            text += &style.item(2, "-", Tone::Plain, limit);
        }
    }
    let count_of = |grade: Grade| report.findings.iter().filter(|it| it.grade == grade).count();
    let (broken, poor) = (count_of(Grade::Broken), count_of(Grade::Poor));
    let (tone, verdict) = match (broken, poor) {
        (0, 0) => (Tone::Good, "Nothing is wrong.".to_owned()),
        (0, poor) => (Tone::Good, format!("Nothing is broken; {} could be better.", count(poor, "thing"))),
        (broken, _) => (
            Tone::Bad,
            format!(
                "{} broken.",
                if broken == 1 { "1 thing is".into() } else { format!("{broken} things are") }
            ),
        ),
    };
    text + "\n" + &style.paint(tone, &verdict) + "\n"
}

fn node(node: &NodeFacts) -> Vec<Cell> {
    let ready = if node.ready { Cell::new(Tone::Good, "True") } else { Cell::new(Tone::Bad, "False") };
    vec![
        Cell::plain(&node.name),
        ready,
        Cell::plain(&node.agent_version),
        Cell::plain(&node.nixl_version),
        Cell::plain(node.backends.join(", ")),
        Cell::plain(if node.rdma { "RDMA" } else { "TCP" }),
        Cell::plain(node.link.map_or("?".into(), spoken_link)),
        Cell::plain(node.memlock.map_or("unlimited".into(), bytes)),
        Cell::plain(node.slots.to_string()),
        Cell::plain(node.gpus.to_string()),
        Cell::plain(node.volumes.join(", ")),
    ]
}

fn finding(found: &Finding, style: Style) -> String {
    let (tone, mark) = match found.grade {
        Grade::Good => (Tone::Good, "ok    "),
        Grade::Poor => (Tone::Poor, "poor  "),
        Grade::Broken => (Tone::Bad, "broken"),
        Grade::Unseen => (Tone::Plain, "unseen"),
    };
    let mut about = found.nodes.iter().take(MOST_NODES).cloned().collect::<Vec<_>>().join(", ");
    if found.nodes.len() > MOST_NODES {
        about = format!("{about} and {} more", found.nodes.len() - MOST_NODES);
    }
    let head: Vec<&str> =
        [about.as_str(), found.reason.unwrap_or_default()].into_iter().filter(|it| !it.is_empty()).collect();
    let said =
        if head.is_empty() { found.text.clone() } else { format!("{}: {}", head.join(": "), found.text) };
    style.item(2, mark, tone, &said)
}
