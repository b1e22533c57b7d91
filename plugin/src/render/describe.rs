//! A job in full: what it moves, how far it is, its conditions, nodes and tasks, and what to do next. Pure. Of tasks it never
//! shows metadata: that is a right, not a fact.

mod tables;

use std::collections::BTreeSet;

use jiff::Timestamp;
use nixl_transfer_crds::{
    NodeRef, TransferJob, TransferTask,
    endpoint::{MemoryRef, Place},
    job::TransferJobStatus,
    task::status::TransportUsed,
};

use super::{
    jobs::of_phase,
    style::{Style, Tone},
    watch::eta,
    words::{moment, of_bytes, rate, span_of},
};
use crate::next;

/// What is known of a job's tasks.
#[derive(Clone, Debug)]
pub enum Tasks {
    /// All of them.
    Seen(Vec<TransferTask>),
    /// Who asks may not read them, as most may not.
    Forbidden,
}

/// What a user is told who may not read tasks, which is no fault.
const FORBIDDEN: &str = "You may not read TransferTasks, and need not: they are for the operator and the agents, since they carry \
                         the rights to memory. What they say of each node is in the job's status, shown above.";

/// The job as text.
pub fn describe(job: &TransferJob, tasks: &Tasks, style: Style, now: Timestamp) -> String {
    let mut text = head(job, style, now);
    let status = job.status.clone().unwrap_or_default();
    let section = |title: &str| format!("\n{}\n", style.paint(Tone::Strong, &format!("{title}:")));
    if !status.conditions.is_empty() {
        text += &section("Conditions");
        text += &tables::conditions(&status, style, now);
    }
    if !status.destinations.is_empty() {
        text += &section("Nodes");
        text += &tables::nodes(&status, style);
    }
    text += &section("Tasks");
    text += &match tasks {
        Tasks::Forbidden => style.item(0, " ", Tone::Plain, FORBIDDEN),
        Tasks::Seen(tasks) if tasks.is_empty() => style.item(0, " ", Tone::Plain, "None."),
        Tasks::Seen(tasks) => tables::tasks(tasks, style),
    };
    text += &section("What to do next");
    for advice in next::advice(job, now) {
        text += &style.item(2, "-", Tone::Plain, &advice.sentence());
    }
    text
}

fn head(job: &TransferJob, style: Style, now: Timestamp) -> String {
    let spec = &job.spec;
    let status = job.status.clone().unwrap_or_default();
    let phase = status.phase.map(|phase| format!("{phase:?}"));
    let mut text = String::new();
    let mut field = |label: &str, tone: Tone, value: &str| {
        if !value.is_empty() {
            text += &style.field(label, tone, value);
        }
    };
    field("Name", Tone::Plain, job.metadata.name.as_deref().unwrap_or_default());
    field("Namespace", Tone::Plain, job.metadata.namespace.as_deref().unwrap_or_default());
    let shown = phase.as_deref().unwrap_or("not seen by an operator yet");
    field("Phase", of_phase(shown), shown);
    if let Some(created) = &job.metadata.creation_timestamp {
        field("Created", Tone::Plain, &moment(created.0, now));
    }
    field("Run", Tone::Plain, &run(&status, now));
    field("Trigger", Tone::Plain, &spec.trigger);
    let path = spec.source.place.volume().map(|volume| (&volume.at.name, &volume.at.path));
    let mut from = end(spec.source.node.as_ref(), path, spec.source.place.memory());
    if let Some(chosen) = status.source.as_ref().filter(|_| !names_a_node(spec.source.node.as_ref())) {
        from = format!("{from} (chosen: {})", chosen.node);
    }
    field("From", Tone::Plain, &from);
    for destination in &spec.destinations {
        let path = match &destination.place {
            Place::Volume(volume) => Some((&volume.name, &volume.path)),
            Place::Memory(_) => None,
        };
        let to = end(destination.node.as_ref(), path, destination.place.memory());
        field("To", Tone::Plain, &format!("{}: {to}", destination.name));
    }
    field("Progress", Tone::Plain, &progress(&status));
    let digests: BTreeSet<&str> = status.destinations.iter().filter_map(|it| it.digest.as_deref()).collect();
    field("Digest", Tone::Plain, &digests.into_iter().collect::<Vec<_>>().join(", "));
    field("Transport", Tone::Plain, &status.transport.as_ref().map(transport).unwrap_or_default());
    text
}

fn run(status: &TransferJobStatus, now: Timestamp) -> String {
    let Some(start) = status.start_time.as_ref() else { return String::new() };
    match status.completion_time.as_ref() {
        Some(end) => {
            format!("{}, took {}, ended {}", status.run, span_of(start.0, end.0), moment(end.0, now))
        }
        None => format!("{}, began {}", status.run, moment(start.0, now)),
    }
}

fn names_a_node(node: Option<&NodeRef>) -> bool {
    node.is_some_and(|node| node.name.is_some())
}

/// `node gpu-a, volume models, path llama`; as one would say it.
fn end(node: Option<&NodeRef>, path: Option<(&String, &String)>, memory: Option<&MemoryRef>) -> String {
    let mut words = Vec::new();
    match node {
        Some(NodeRef { name: Some(name), .. }) => words.push(format!("node {name}")),
        Some(NodeRef { selector: Some(selector), .. }) => {
            words.push(format!("nodes with {}", spoken(selector)))
        }
        _ => {}
    }
    if let Some((volume, path)) = path {
        words.push(format!("volume {volume}"));
        words.push(if path.is_empty() { "all of it".into() } else { format!("path {path}") });
    }
    words.extend(memory.map(|memory| format!("memory region {}", memory.name)));
    words.join(", ")
}

fn spoken(selector: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector) -> String {
    match kube::core::Selector::try_from(selector.clone()) {
        Ok(selector) if selector.selects_all() => "any labels".into(),
        Ok(selector) => selector.to_string(),
        Err(_) => "a selector that cannot be read".into(),
    }
}

fn progress(status: &TransferJobStatus) -> String {
    let Some(progress) = &status.progress else { return String::new() };
    let running = status.phase.is_some_and(|phase| !phase.is_terminal());
    let mut words = vec![
        progress.summary.clone(),
        of_bytes(progress.bytes_done, progress.bytes_total),
        format!("{}/{} files", progress.files_done, progress.files_total),
        rate(progress.bytes_per_second),
    ];
    words.extend(eta(progress).filter(|_| running).map(|eta| format!("ETA {eta}")));
    words.retain(|word| !word.is_empty());
    words.join(", ")
}

fn transport(used: &TransportUsed) -> String {
    let mut words = vec![format!("{} over {}", used.backend, used.network)];
    words.extend(used.fan_out.as_ref().map(|fan_out| match fan_out.as_str() {
        "Chain" => "in a chain".to_owned(),
        _ => "direct".to_owned(),
    }));
    if !used.staged.is_empty() {
        words.push(format!("GPU memory of the {} by way of the host", used.staged.join(" and ")));
    }
    words.extend(used.fallback_reason.as_ref().map(|reason| format!("not the fastest network: {reason}")));
    words.join(", ")
}
