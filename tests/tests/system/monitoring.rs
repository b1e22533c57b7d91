//! A real Prometheus reads a run that causes everything: every metric of the specification is there, with its labels and no
//! others, every expression of every panel and rule can be computed and has data, and alerts fire that should, and only those.

mod queries;
mod run;
mod specified;

use std::{
    collections::BTreeSet,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use devcluster::{Prometheus, tool};
use nixl_transfer_tests::{Cluster, OwnMount};
use serde_json::{Value, json};

use queries::Query;
use specified::SPECIFIED;

/// Where to write what the panels' queries returned, for `xtask/tools/monitoring/draw.py`.
const DATA: &str = "NIXL_TRANSFER_MONITORING_DATA";

/// Alerts whose condition holds at the end of the run.
const HOLD: &[&str] = &["NixlTransferJobsFailing", "NixlTransferDamagedData", "NixlTransferSlowNetwork"];

/// Alerts for which nothing must be found, and why. What they compare must be there all the same.
const QUIET: &[(&str, &str)] = &[
    ("NixlTransferOperatorDown", "the operator runs"),
    ("NixlTransferNoLeader", "it leads"),
    ("NixlTransferAgentsNotReady", "all agents are ready"),
    ("NixlTransferAgentFenced", "all renew their Leases"),
    ("NixlTransferJobsQueued", "the job that waited has run"),
    ("NixlTransferRetrying", "one worker was killed"),
    ("NixlTransferWorkersLost", "one worker was killed"),
    ("NixlTransferWritesRefused", "the policy was there for seconds only"),
    ("NixlTransferWritesSlow", "the API server is near"),
    ("NixlTransferPlanningSlow", "there are few jobs"),
    ("NixlTransferVersionsDiffer", "all are of one build"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_panel_and_rule_has_data_in_a_real_prometheus() -> Result<()> {
    let own = OwnMount::new("monitoring")?;
    let (cluster, _gpus) = run::start(&own).await?;
    let prometheus = cluster.prometheus(&queries::files().join("rules.yaml"))?;
    scraped_since(&prometheus, now()?).await?;
    let began = now()?;
    run::everything(&cluster, &prometheus).await?;
    // What ended last is read, and computed from, within some seconds.
    scraped_since(&prometheus, now()?).await?;
    let ask = Ask { prometheus: &prometheus, began, ended: now()? };

    let results = [
        ask.metrics_are_as_specified(),
        shown_is_documented(&cluster),
        ask.panels_have_data(),
        ask.recorded_rules_have_data(),
        ask.alerts_hold_that_should(),
    ];
    let wrong: Vec<String> =
        results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// Waits until all four have been read, and rules computed, three times since then.
async fn scraped_since(prometheus: &Prometheus, then: f64) -> Result<()> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let since = now()? - then;
        let read = format!("count(count_over_time(up[{}s]) >= 3)", (since as u64).max(1));
        let found = prometheus.get("query", &[("query", &read)])?["result"][0]["value"][1].clone();
        if found == "4" && since > 4.0 {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < deadline, "{found} of 4 targets were read");
        tokio::time::sleep(Duration::from_millis(500)).await; // polls with a deadline
    }
}

struct Ask<'a> {
    prometheus: &'a Prometheus,
    began: f64,
    ended: f64,
}

impl Ask<'_> {
    /// Everything that an expression returned during the run.
    fn over_the_run(&self, expression: &str) -> Result<Value> {
        let (start, end) = (self.began.to_string(), self.ended.to_string());
        let parameters = [("query", expression), ("start", &start), ("end", &end), ("step", "1")];
        let data = self.prometheus.get("query_range", &parameters).with_context(|| expression.to_owned())?;
        Ok(data["result"].clone())
    }

    fn metrics_are_as_specified(&self) -> Result<()> {
        let mut wrong = Vec::new();
        for (name, expected) in SPECIFIED {
            let kinds = [name.to_string(), format!("{name}_count")];
            let [plain, histogram] = kinds.map(|name| format!("nixl_transfer_{name}"));
            let series = format!(r#"{{__name__=~"{plain}|{histogram}"}}"#);
            let found = self.prometheus.get("series", &[("match[]", &series)])?;
            let others = found.as_array().into_iter().flatten().map(own_labels);
            let others: BTreeSet<_> = others.filter(|labels| !specified::fits(expected, labels)).collect();
            if !others.is_empty() {
                wrong.push(format!("{name} has labels {others:?}, not {expected:?}"));
            }
            let highest = format!("max(max_over_time({series}[10m])) > 0");
            if self.over_the_run(&highest)?.as_array().is_none_or(Vec::is_empty) {
                wrong.push(format!("{name} never had a value"));
            }
        }
        // Names of jobs only where the specification names them, and only while they run.
        let named = self.prometheus.get("series", &[("match[]", r#"{name!=""}"#)])?;
        let of_jobs: BTreeSet<&str> =
            named.as_array().into_iter().flatten().filter_map(|series| series["__name__"].as_str()).collect();
        let allowed = BTreeSet::from(["nixl_transfer_job_progress_ratio", "nixl_transfer_job_eta_seconds"]);
        if !of_jobs.is_subset(&allowed) {
            wrong.push(format!("names of jobs stand in {of_jobs:?}"));
        }
        let left = self.prometheus.get("query", &[("query", r#"{name!=""}"#)])?;
        if left["result"] != json!([]) {
            wrong.push(format!("jobs that have ended are still shown: {left}"));
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }

    fn panels_have_data(&self) -> Result<()> {
        let (mut silent, mut data) = (Vec::new(), Vec::new());
        for Query { place, legend, unit, expression } in queries::panels()? {
            let result = self.over_the_run(&expression)?;
            if result == json!([]) {
                silent.push(format!("{place}: {expression}"));
            }
            data.push(json!({"panel": place, "legend": legend, "unit": unit, "query": expression, "result": result}));
        }
        if let Some(file) = std::env::var_os(DATA) {
            std::fs::write(file, json!({"began": self.began, "panels": data}).to_string())?;
        }
        ensure!(silent.is_empty(), "no data for\n{}", silent.join("\n"));
        Ok(())
    }

    fn recorded_rules_have_data(&self) -> Result<()> {
        for (name, _) in queries::rules("record")? {
            ensure!(self.over_the_run(&name)? != json!([]), "the rule {name} has recorded nothing");
        }
        let groups = self.prometheus.get("rules", &[])?;
        for rule in
            groups["groups"].as_array().into_iter().flatten().flat_map(|group| group["rules"].as_array())
        {
            for rule in rule {
                ensure!(rule["health"] == "ok", "{rule}");
            }
        }
        Ok(())
    }

    fn alerts_hold_that_should(&self) -> Result<()> {
        let alerts = queries::rules("alert")?;
        let known: BTreeSet<&str> = HOLD.iter().copied().chain(QUIET.iter().map(|(name, _)| *name)).collect();
        ensure!(
            known == alerts.iter().map(|(name, _)| name.as_str()).collect(),
            "an alert is in neither list"
        );
        let mut wrong = Vec::new();
        for (name, expression) in &alerts {
            let holds = self.prometheus.get("query", &[("query", expression)])?["result"] != json!([]);
            if holds != HOLD.contains(&name.as_str()) {
                wrong.push(format!("{name} holds: {holds}"));
            }
            if self.over_the_run(queries::compared(expression))? == json!([]) {
                wrong.push(format!("{name} compares what is not there: {expression}"));
            }
        }
        // What people read has the labels filled in.
        let firing = self.prometheus.get("alerts", &[])?.to_string();
        if !firing.contains("TransferJobs in namespace default failed with SourceNotFound.") {
            wrong.push(firing);
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }
}

/// Names of a series' labels, without those of the scrape.
fn own_labels(series: &Value) -> Vec<&str> {
    let names = series.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    names.filter(|name| !["__name__", "job", "instance", "node"].contains(name)).collect()
}

/// `docs/observability.md` says what there is: name, type, meaning and labels, of all and of no others.
fn shown_is_documented(cluster: &Cluster) -> Result<()> {
    let operator = cluster.operator.as_ref().context("an operator")?.metrics()?;
    let mut agents = specified::Table::new();
    for agent in cluster.agents.values() {
        agents.extend(specified::shown(&agent.metrics()?)?);
    }
    for (section, mut shown) in [("Agent", agents), ("Operator", specified::shown(&operator)?)] {
        let (documented, labels) = specified::documented(section)?;
        // Shown only while a job runs; that they were is looked at elsewhere.
        for name in ["job_progress_ratio", "job_eta_seconds"] {
            if let Some(row) = documented.get(name) {
                shown.entry(name.into()).or_insert_with(|| row.clone());
            }
        }
        let pairs =
            shown.keys().chain(documented.keys()).map(|name| (name, shown.get(name), documented.get(name)));
        let differ: Vec<_> = pairs.filter(|(_, shown, documented)| shown != documented).collect();
        ensure!(differ.is_empty(), "{section}: shown and documented differ: {differ:#?}");
        for (name, expected) in SPECIFIED {
            let (said, expected) = (labels.get(*name), expected.replace('?', ""));
            ensure!(
                said.is_none_or(|said| *said == expected),
                "{name} has {expected:?}, documented {said:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn rules_are_what_promtool_takes_and_alerts_fire_when_they_should() -> Result<()> {
    let rules = queries::files().join("rules.yaml");
    let tests = queries::files().join("../../../tests/rules/alerts.yaml");
    let promtool = |words: &[&str], file: &std::path::Path| -> Result<()> {
        let output = Command::new(tool("promtool")?).args(words).arg(file).output()?;
        let said = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "promtool {words:?}: {}", String::from_utf8_lossy(&said));
        Ok(())
    };
    promtool(&["check", "rules", "--lint=all", "--lint-fatal"], &rules)?;
    promtool(&["test", "rules"], &tests)?;
    let text = std::fs::read_to_string(tests)?;
    for (alert, _) in queries::rules("alert")? {
        let looked_at = |what: &str| {
            text.lines().any(|line| line.contains(&format!("\"{alert}\"")) && line.contains(what))
        };
        ensure!(looked_at("exp_samples: [{") && looked_at("exp_samples: []"), "{alert} lacks a test");
    }
    Ok(())
}

#[test]
fn dashboards_rules_runbooks_and_picture_are_those_of_their_sources() -> Result<()> {
    for script in ["generate.py", "draw.py"] {
        let path = queries::files().join("../../../xtask/tools/monitoring").join(script);
        let output = Command::new("python3").arg(path).arg("--check").output().context("python3")?;
        ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
