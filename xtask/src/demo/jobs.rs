//! TransferJobs as the API server's JSON shows them. Only [`apply`] does I/O. The types are read by name on purpose: the demo
//! looks at the product from outside, as a user's script would.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use devcluster::Kubectl;
use serde_json::Value;

/// Namespace and name.
pub type Key = (String, String);

/// A job as last seen.
#[derive(Clone, Debug)]
pub struct Job {
    pub key: Key,
    pub object: Value,
    /// From the apply until it was seen to have ended.
    pub took: Duration,
}

/// Applies the manifests with kubectl; returns the TransferJobs among them.
pub fn apply(kubectl: &Kubectl, files: &[PathBuf]) -> Result<Vec<Key>> {
    let mut arguments = vec!["apply".to_owned(), "--output=json".to_owned()];
    arguments.extend(files.iter().map(|file| format!("--filename={}", file.display())));
    let text = kubectl.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    let list: Value = serde_json::from_str(&text).context("kubectl apply wrote no JSON")?;
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or(std::slice::from_ref(&list));
    let jobs: Vec<Key> = items.iter().filter(|item| item["kind"] == "TransferJob").filter_map(key).collect();
    ensure!(!jobs.is_empty(), "the examples hold no TransferJob");
    Ok(jobs)
}

pub fn key(object: &Value) -> Option<Key> {
    let metadata = &object["metadata"];
    Some((metadata["namespace"].as_str()?.to_owned(), metadata["name"].as_str()?.to_owned()))
}

impl Job {
    pub fn title(&self) -> String {
        format!("{}/{}", self.key.0, self.key.1)
    }

    pub fn is_complete(&self) -> bool {
        condition_is_true(&self.object, "Complete")
    }

    pub fn phase(&self) -> &str {
        self.object["status"]["phase"].as_str().unwrap_or("Pending")
    }

    /// A number of the status, by JSON pointer.
    pub fn number(&self, pointer: &str) -> u64 {
        self.object["status"].pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
    }

    /// One short text: phase, progress, rate.
    pub fn progress(&self) -> String {
        let text = |field: &str| self.object["status"]["progress"][field].as_str().unwrap_or("").to_owned();
        let parts = [self.key.1.clone(), self.phase().to_owned(), text("summary"), text("rate")];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// Complete or Failed, for the generation that was applied.
pub fn has_ended(object: &Value) -> bool {
    let seen = object["status"]["observedGeneration"].as_u64() >= object["metadata"]["generation"].as_u64();
    seen && (condition_is_true(object, "Complete") || condition_is_true(object, "Failed"))
}

fn condition_is_true(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_job_has_ended_when_its_own_generation_has() {
        let job = |generation: u64, kind: &str, status: &str| {
            json!({"metadata": {"generation": 2}, "status": {"observedGeneration": generation,
                   "conditions": [{"type": "Ready", "status": "True"}, {"type": kind, "status": status}]}})
        };
        assert!(has_ended(&job(2, "Complete", "True")));
        assert!(has_ended(&job(2, "Failed", "True")));
        assert!(!has_ended(&job(1, "Complete", "True")));
        assert!(!has_ended(&job(2, "Complete", "False")));
        assert!(!has_ended(&json!({"metadata": {"generation": 1}})));
    }
}
