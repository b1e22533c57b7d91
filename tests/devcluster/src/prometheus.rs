//! A real Prometheus as a child process, which reads operator and agents every second.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::cluster_dir::{ClusterDir, private_dir};
use crate::control_plane::ControlPlane;
use crate::http::http_get;
use crate::ports::free_port;
use crate::process::{Launch, Process};
use crate::tool_paths::tool;

const READY_WITHIN: Duration = Duration::from_secs(30);
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// What it reads: the label `node`, empty for the operator, and the port.
pub type Target<'a> = (&'a str, u16);

/// A running Prometheus. Dropping it kills it.
#[derive(Debug)]
pub struct Prometheus {
    _process: Process,
    port: u16,
}

impl Prometheus {
    /// Starts it with rules from a file; returns when it answers.
    pub fn start(
        cluster: &ClusterDir,
        plane: &ControlPlane,
        targets: &[Target<'_>],
        rules: &Path,
    ) -> Result<Self> {
        let directory = cluster.path().join("prometheus");
        private_dir(&directory)?;
        let targets: Vec<Value> = targets
            .iter()
            .map(|(node, port)| json!({"targets": [format!("127.0.0.1:{port}")], "labels": {"node": node}}))
            .collect();
        // JSON is YAML too.
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [{"job_name": "nixl-transfer", "honor_labels": true, "static_configs": targets}],
        });
        let file = directory.join("prometheus.yaml");
        fs::write(&file, config.to_string())?;
        let port = free_port()?;
        let launch = Launch {
            name: "prometheus".to_owned(),
            program: tool("prometheus")?,
            arguments: vec![
                format!("--config.file={}", file.display()).into(),
                format!("--storage.tsdb.path={}", directory.join("data").display()).into(),
                format!("--web.listen-address=127.0.0.1:{port}").into(),
            ],
            environment: Vec::new(),
            log: directory.join("prometheus.log"),
            directory,
            tie: plane.tie(),
        };
        let process = Process::start(&launch, plane.registry())?;
        process.wait_ready(Instant::now() + READY_WITHIN, || {
            http_get(port, "/-/ready", ANSWERED_WITHIN).is_ok_and(|(status, _)| status == 200)
        })?;
        Ok(Self { _process: process, port })
    }

    /// `data` of the answer to `GET /api/v1/<path>?<parameters>`. What Prometheus refuses is an error with its reason.
    pub fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let query: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let path = format!("/api/v1/{path}?{}", query.join("&"));
        let (status, body) = http_get(self.port, &path, ANSWERED_WITHIN)?;
        let answer: Value = serde_json::from_str(&body).with_context(|| format!("{status}: {body}"))?;
        if answer["status"] != "success" {
            bail!("Prometheus says {status}: {}", answer["error"]);
        }
        Ok(answer["data"].clone())
    }
}

/// A value in a query string: all but what never has a meaning there.
fn encoded(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() {
            text.push(byte.into());
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_expression_has_a_meaning_in_a_query_string() {
        assert_eq!(encoded(r#"a{b="c"}&+"#), "a%7Bb%3D%22c%22%7D%26%2B");
    }
}
