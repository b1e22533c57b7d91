//! Compares every copy with its source by a tool that knows nothing of us: `diff -r --no-dereference` (diffutils).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use devcluster::Agent;
use serde_json::Value;

use super::jobs::Job;
use super::start::Running;
use crate::exec;
use crate::progress::Step;

/// One source and one copy, on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub source: PathBuf,
    pub copy: PathBuf,
}

pub fn every_byte(running: &Running, jobs: &[Job]) -> Result<()> {
    let volume = |node: &str, volume: &str| {
        let agent = running.agents.iter().find(|agent: &&Agent| agent.node() == node);
        agent.with_context(|| format!("no node {node}"))?.volume(volume).map(Path::to_owned)
    };
    let mut all = Vec::new();
    for job in jobs {
        let pairs = pairs(&job.object, volume).with_context(|| job.title())?;
        let desired = job.number("/nodes/desired");
        ensure!(
            pairs.len() as u64 == desired && desired > 0,
            "{}: {} copies for {desired} nodes",
            job.title(),
            pairs.len()
        );
        all.extend(pairs);
    }
    let step =
        Step::start(format!("comparing {} copies with their sources (diff -r --no-dereference)", all.len()));
    let results = thread::scope(|scope| {
        let running: Vec<_> = all.iter().map(|pair| scope.spawn(|| same(&pair.source, &pair.copy))).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a comparison panicked"))))
            .collect()
    });
    let results: Vec<Result<()>> = results;
    match results.into_iter().collect::<Result<Vec<()>>>() {
        Ok(_) => step.done("no difference"),
        Err(error) => {
            step.failed("there are differences");
            return Err(error);
        }
    }
    Ok(())
}

/// Where the job's source and each of its copies are, from spec and status.
pub fn pairs(job: &Value, volume: impl Fn(&str, &str) -> Result<PathBuf>) -> Result<Vec<Pair>> {
    let place = |node: &Value, endpoint: &Value| {
        let node = node.as_str().context("the status names no node")?;
        let name = endpoint["name"].as_str().context("the endpoint names no volume")?;
        Ok::<_, anyhow::Error>(volume(node, name)?.join(endpoint["path"].as_str().unwrap_or("")))
    };
    let source = place(&job["status"]["source"]["node"], &job["spec"]["source"]["volume"])?;
    let entries = job["status"]["destinations"].as_array().context("the status lists no destinations")?;
    let destinations = job["spec"]["destinations"].as_array().context("the job has no destinations")?;
    let mut pairs = Vec::new();
    for entry in entries {
        let destination = destinations.iter().find(|destination| destination["name"] == entry["name"]);
        let destination =
            destination.context("the status lists a destination that the spec does not have")?;
        pairs.push(Pair { source: source.clone(), copy: place(&entry["node"], &destination["volume"])? });
    }
    Ok(pairs)
}

/// Every byte of two files, or of all files beneath two directories.
pub fn same(source: &Path, copy: &Path) -> Result<()> {
    let mut diff = Command::new("diff");
    diff.args(["-r", "--no-dereference", "--"]).arg(source).arg(copy);
    exec::watched(&mut diff, |_| {}).with_context(|| format!("{} differs from its source", copy.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn copies_are_found_from_spec_and_status() {
        let job = json!({
            "spec": {"source": {"volume": {"name": "data", "path": "models/x"}},
                     "destinations": [{"name": "all", "volume": {"name": "fast", "path": "y"}}]},
            "status": {"source": {"node": "node-a"},
                       "destinations": [{"name": "all", "node": "node-b"}, {"name": "all", "node": "node-c"}]},
        });
        let volume = |node: &str, name: &str| Ok(Path::new("/v").join(node).join(name));
        let pair = |copy: &str| Pair { source: "/v/node-a/data/models/x".into(), copy: copy.into() };
        assert_eq!(pairs(&job, volume).unwrap(), [pair("/v/node-b/fast/y"), pair("/v/node-c/fast/y")]);
        assert!(pairs(&json!({"status": {"source": {"node": "node-a"}}}), volume).is_err());
    }

    #[test]
    fn one_changed_byte_is_a_difference() {
        let place = std::env::temp_dir().join(format!("nixl-transfer-compare-{}", std::process::id()));
        let pair = Pair { source: place.join("a"), copy: place.join("b") };
        for directory in [&pair.source, &pair.copy] {
            std::fs::create_dir_all(directory).unwrap();
            std::fs::write(directory.join("file"), vec![7; 100_000]).unwrap();
        }
        assert!(same(&pair.source, &pair.copy).is_ok());
        let mut bytes = vec![7; 100_000];
        bytes[99_999] = 8;
        std::fs::write(pair.copy.join("file"), bytes).unwrap();
        assert!(same(&pair.source, &pair.copy).is_err());
        std::fs::remove_dir_all(place).unwrap();
    }
}
