//! The expressions of the chart's dashboards and rules, as they stand in its files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

/// An expression and where it stands.
#[derive(Debug)]
pub struct Query {
    pub place: String,
    pub legend: String,
    pub unit: String,
    pub expression: String,
}

pub fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/nixl-transfer/files")
}

/// Those of every panel, with values instead of Grafana's variables.
pub fn panels() -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    for name in ["fleet", "node", "operator"] {
        let text = std::fs::read_to_string(files().join(format!("dashboards/{name}.json")))?;
        let dashboard: Value = serde_json::from_str(&text)?;
        for panel in dashboard["panels"].as_array().context("panels")? {
            for target in panel["targets"].as_array().context("targets")? {
                let expression = target["expr"].as_str().context("an expression")?;
                let filled =
                    [("$namespace", ".*"), ("$node", ".*"), ("$__rate_interval", "5s"), ("$__range", "2m")]
                        .iter()
                        .fold(expression.to_owned(), |text, (variable, value)| text.replace(variable, value));
                queries.push(Query {
                    place: format!("{name}: {}", panel["title"].as_str().context("a title")?),
                    legend: target["legendFormat"].as_str().unwrap_or_default().to_owned(),
                    unit: panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default().to_owned(),
                    expression: filled,
                });
            }
        }
    }
    Ok(queries)
}

/// Name and expression of every recorded rule, or of every alert.
pub fn rules(kind: &str) -> Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(files().join("rules.yaml"))?;
    let file: Value = serde_yaml::from_str(&text)?;
    let groups = file["groups"].as_array().context("groups")?;
    let all = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten());
    let word = |value: &Value| value.as_str().map(str::to_owned);
    Ok(all.filter_map(|rule| Some((word(&rule[kind])?, word(&rule["expr"])?))).collect())
}

/// What an alert compares, without the comparison: that must be there even while all is well.
pub fn compared(alert: &str) -> &str {
    match alert.rsplit_once(' ').and_then(|(before, _)| before.rsplit_once(' ')) {
        Some((value, "<" | ">")) => value,
        _ => alert.trim_start_matches("absent(").trim_end_matches(')'),
    }
}
