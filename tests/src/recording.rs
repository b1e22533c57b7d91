//! What a cluster did and said, looked at from outside: for a test that wants to know, and at the end of each cluster for the
//! record of the whole suite, see `devcluster::Record`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use devcluster::{ClusterDir, Record, SUITE_RECORD};

use crate::{canary::Secrets, cluster::Cluster, reasons};

/// How long a process may take to say its metrics: some tests have stopped it.
const METRICS_WITHIN: Duration = Duration::from_secs(1);
/// Not looked into: data of tests and of etcd.
const DATA: [&str; 2] = ["volumes", "etcd"];

/// What was found.
#[derive(Default)]
pub struct Look {
    /// The secrets that were looked for.
    pub secrets: Secrets,
    /// Logs, metrics and objects that were looked at.
    pub places: BTreeSet<String>,
    /// Reasons that statuses and events named.
    pub reasons: BTreeSet<String>,
    /// Which secret stands where, and files of memory that was dumped.
    pub told: BTreeSet<String>,
}

impl Look {
    fn at(&mut self, place: String, text: &str) {
        self.told.extend(
            self.secrets
                .in_text(text)
                .into_iter()
                .map(|(line, what)| format!("{place}, line {line}: {what}")),
        );
        self.places.insert(place);
    }
}

impl Cluster {
    /// Looks for tokens, and for all metadata that ever stood in a status, in logs, metrics and objects, events among them.
    pub fn look(&self) -> Result<Look> {
        let mut look = Look::default();
        for (user, token) in self.plane.tokens()? {
            look.secrets.add(&format!("the token of {user}"), &token);
        }
        self.plane.stored(|key, value| look.secrets.add_of_object(key, value))?;
        for (node, agent) in self.agents.iter().filter(|(_, agent)| agent.is_running()) {
            if let Ok(text) = agent.metrics_within(METRICS_WITHIN) {
                look.at(format!("metrics of node {node}'s agent"), &text);
            }
        }
        if let Some(operator) = self.operator.as_ref().filter(|operator| operator.is_running())
            && let Ok(text) = operator.metrics_within(METRICS_WITHIN)
        {
            look.at("the operator's metrics".into(), &text);
        }
        let mut files = Vec::new();
        walk(self.directory(), &mut files)?;
        for file in files {
            let place = file.strip_prefix(self.directory()).unwrap_or(&file).display().to_string();
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if name == "core" || name.starts_with("core.") {
                look.told.insert(format!("{place}: memory of a process"));
            } else if name.ends_with(".log") {
                let text = fs::read(&file).with_context(|| place.clone())?;
                look.at(place, &String::from_utf8_lossy(&text));
            }
        }
        let Look { secrets, places, told, reasons } = &mut look;
        self.plane.stored(|key, value| {
            told.extend(secrets.in_object(key, value).into_iter().map(|what| format!("{key}: {what}")));
            places.insert(key.to_owned());
            reasons.append(&mut reasons::in_object(key, value));
        })?;
        Ok(look)
    }
}

/// All regular files but the data. What goes meanwhile is not there.
fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| directory.display().to_string())?,
    };
    for entry in entries {
        let entry = entry?;
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_file() {
            files.push(entry.path());
        } else if kind.is_dir() && !DATA.iter().any(|data| entry.file_name() == *data) {
            walk(&entry.path(), files)?;
        }
    }
    Ok(())
}

/// The record of one cluster, when somebody wants one.
pub(crate) struct Recording {
    path: PathBuf,
    record: Record,
}

impl Recording {
    /// Writes at once that the cluster has begun: one that never ends is seen by that.
    pub fn begin(dir: &ClusterDir) -> Result<Option<Self>> {
        let Some(directory) = std::env::var_os(SUITE_RECORD).map(PathBuf::from) else { return Ok(None) };
        let name = dir.path().file_name().context("a cluster's directory has a name")?;
        // The harness names a test's thread after it, unless there is only one.
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test without a name").to_owned();
        let path = directory.join(name).with_extension("json");
        let recording = Self { path, record: Record { test, ..Record::default() } };
        recording
            .record
            .write(&recording.path)
            .with_context(|| format!("{SUITE_RECORD} names {directory:?}"))?;
        Ok(Some(recording))
    }

    /// Looks at the cluster and writes what it did. Never fails: what it cannot look at stands in the record.
    pub fn end(mut self, cluster: &Cluster) {
        let record = &mut self.record;
        match cluster.plane.asked() {
            Ok(asked) => (record.used, record.refused) = (asked.allowed, asked.refused),
            Err(error) => drop(record.unseen.insert(format!("{error:#}"))),
        }
        match cluster.look() {
            Ok(look) => (record.told, record.reasons) = (look.told, look.reasons),
            Err(error) => drop(record.unseen.insert(format!("{error:#}"))),
        }
        record.ended = true;
        if let Err(error) = record.write(&self.path) {
            // Whoever reads the records sees that this one has not ended.
            eprintln!("the record of {}: {error:#}", record.test);
        }
    }
}
