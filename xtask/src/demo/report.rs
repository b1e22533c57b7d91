//! What the demo says at the end: the table, the JSON, what to try, and, when a job failed, why.

use std::fmt::Write;

use devcluster::{ADMIN, ControlPlane};
use serde_json::{Value, json};

use super::jobs::Job;
use super::start::Running;
use crate::paths;
use crate::progress::{bytes, seconds};

/// One line per job. The rate counts what arrived at all nodes, from `kubectl apply` to Complete.
pub fn table(jobs: &[Job]) -> String {
    let mut text = format!(
        "{:<28} {:<10} {:>5} {:>7} {:>11} {:>8} {:>12}\n",
        "job", "phase", "nodes", "files", "bytes", "time", "rate"
    );
    for job in jobs {
        let moved = job.number("/progress/bytesDone");
        let rate = moved as f64 / job.took.as_secs_f64().max(0.001) / 1e9;
        let _ = writeln!(
            text,
            "{:<28} {:<10} {:>5} {:>7} {:>11} {:>8} {:>12}",
            job.title(),
            job.phase(),
            job.number("/nodes/succeeded"),
            job.number("/progress/filesDone"),
            bytes(moved),
            seconds(job.took),
            format!("{rate:.2} GB/s"),
        );
    }
    text
}

/// For scripts (`--json`). It is written after the comparison only: `verified` says that it was made.
pub fn json(running: &Running, jobs: &[Job]) -> Value {
    let nodes: Vec<Value> = running
        .agents
        .iter()
        .map(
            |agent| json!({"name": agent.node(), "pids": {"agent": agent.pid()}, "volumes": agent.volumes()}),
        )
        .collect();
    let jobs: Vec<Value> = jobs
        .iter()
        .map(|job| {
            let seconds = (job.took.as_secs_f64() * 1000.0).round() / 1000.0;
            json!({"namespace": job.key.0, "name": job.key.1, "phase": job.phase(), "seconds": seconds})
        })
        .collect();
    json!({
        "kubeconfig": running.plane.kubeconfig(ADMIN),
        "kubectl": paths::tools().join("bin/kubectl"),
        "nodes": nodes,
        "jobs": jobs,
        "verified": true,
    })
}

/// After `--keep`.
pub fn what_to_try(running: &Running) -> String {
    let kubectl = paths::tools().join("bin/kubectl").display().to_string();
    let mut text = format!(
        "It goes on running. To look around:\n  \
         export KUBECONFIG={}\n  \
         {kubectl} get tj,tt,tn -A\n  \
         {kubectl} -n ml describe tj model-to-receivers\n  \
         {kubectl} -n ml patch tj model-to-receivers --type merge -p '{{\"spec\":{{\"trigger\":\"again\"}}}}'\n\
         The nodes' volumes:\n",
        running.plane.kubeconfig(ADMIN).display()
    );
    for agent in &running.agents {
        for (name, path) in agent.volumes() {
            let _ = writeln!(text, "  {} {name}: {}", agent.node(), path.display());
        }
    }
    text + "To end it: cargo xtask demo --stop"
}

/// Conditions of the failed jobs, and the tasks.
pub fn explain(plane: &ControlPlane, failed: &[&Job]) {
    for job in failed {
        eprintln!("\n{} is {}:\n{}", job.title(), job.phase(), conditions(&job.object));
    }
    match plane.kubectl(&["get", "transfertasks", "--all-namespaces", "--output=wide"]) {
        Ok(tasks) => eprintln!("\n{tasks}"),
        Err(error) => eprintln!("\nthe tasks cannot be listed: {error:#}"),
    }
}

fn conditions(object: &Value) -> String {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if conditions.is_empty() {
        return "  no conditions: has the operator seen it?".to_owned();
    }
    let field = |condition: &Value, name: &str| condition[name].as_str().unwrap_or("").to_owned();
    let line = |condition: &Value| {
        let [kind, status, reason, message] =
            ["type", "status", "reason", "message"].map(|name| field(condition, name));
        format!("  {kind}={status} {reason}: {message}")
    };
    conditions.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn job(status: Value) -> Job {
        let key = ("ml".to_owned(), "copy".to_owned());
        Job { key, object: json!({"status": status}), took: Duration::from_secs(2) }
    }

    #[test]
    fn the_table_counts_what_arrived() {
        let status = json!({"phase": "Complete", "nodes": {"succeeded": 2}, "progress": {"bytesDone": 4_000_000_000_u64, "filesDone": 9}});
        let text = table(&[job(status)]);
        let line = text.lines().nth(1).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, ["ml/copy", "Complete", "2", "9", "3.7", "GiB", "2.0", "s", "2.00", "GB/s"]);
    }

    #[test]
    fn conditions_are_one_line_each() {
        let status = json!({"conditions": [{"type": "Failed", "status": "True", "reason": "IoError", "message": "disk"}]});
        assert_eq!(conditions(&job(status).object), "  Failed=True IoError: disk");
        assert!(conditions(&json!({})).contains("no conditions"));
    }
}
