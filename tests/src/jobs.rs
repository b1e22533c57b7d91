//! Jobs in tests: made as a user would write them, applied with kubectl, waited for with a deadline.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
};
use nixl_transfer_crds::{TransferJob, TransferTask, condition, job::status::Phase};
use serde_json::{Value, json};

use crate::cluster::{Cluster, NAMESPACE};

/// A job from one path on a node to the same volume on another node.
pub fn one_to_one(name: &str, from: (&str, &str), to: (&str, &str)) -> Value {
    job(name, from, json!({"name": to.0}), to.1)
}

/// A job from one path on a node to all nodes labelled `role: receiver`.
pub fn to_receivers(name: &str, from: (&str, &str), path: &str) -> Value {
    job(name, from, json!({"selector": {"matchLabels": {"role": "receiver"}}}), path)
}

fn job(name: &str, from: (&str, &str), node: Value, path: &str) -> Value {
    json!({
        "apiVersion": "nixl-transfer.io/v1alpha1",
        "kind": "TransferJob",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "source": {"node": {"name": from.0}, "volume": {"name": "data", "path": from.1}},
            "destinations": [{"name": "target", "node": node, "volume": {"name": "data", "path": path}}],
        }
    })
}

/// Sets a field of the job's spec.
pub fn with(mut job: Value, field: &str, value: Value) -> Value {
    job["spec"][field] = value;
    job
}

impl Cluster {
    /// TransferJobs in the tests' namespace.
    pub fn jobs(&self) -> Api<TransferJob> {
        Api::namespaced(self.client(), NAMESPACE)
    }

    /// TransferTasks in the tests' namespace.
    pub fn tasks(&self) -> Api<TransferTask> {
        Api::namespaced(self.client(), NAMESPACE)
    }

    /// Applies a job as a user would.
    pub fn apply(&self, job: &Value) -> Result<String> {
        self.plane.apply_text(&job.to_string())
    }

    /// Waits until the job fulfils `until`; on the deadline the error tells the job's and its tasks' state.
    pub async fn wait_for(
        &self,
        name: &str,
        within: Duration,
        what: &str,
        until: impl Fn(&TransferJob) -> bool,
    ) -> Result<TransferJob> {
        let waited = tokio::time::timeout(within, self.watch_until(name, until)).await;
        match waited {
            Ok(result) => result,
            Err(_) => bail!("{name} is not {what} after {within:?}:\n{}", self.explain(name).await),
        }
    }

    async fn watch_until(&self, name: &str, until: impl Fn(&TransferJob) -> bool) -> Result<TransferJob> {
        let fields = format!("metadata.name={name}");
        loop {
            // A list, then a watch from there; when the watch breaks (the API server was stopped) all over again.
            let Ok(list) = self.jobs().list(&ListParams::default().fields(&fields)).await else {
                tokio::time::sleep(Duration::from_millis(200)).await; // back-off, the caller holds the deadline
                continue;
            };
            if let Some(found) = list.items.iter().find(|job| until(job)) {
                return Ok(found.clone());
            }
            let version = list.metadata.resource_version.unwrap_or_default();
            let parameters = WatchParams::default().fields(&fields).timeout(20);
            let Ok(events) = self.jobs().watch(&parameters, &version).await else { continue };
            let mut events = events.boxed();
            while let Ok(Some(event)) = events.try_next().await {
                match event {
                    WatchEvent::Added(job) | WatchEvent::Modified(job) if until(&job) => return Ok(job),
                    WatchEvent::Error(_) => break,
                    _ => {}
                }
            }
        }
    }

    /// Waits until the job is Complete; fails at once when it has Failed.
    pub async fn wait_complete(&self, name: &str, within: Duration) -> Result<TransferJob> {
        let job = self.wait_terminal(name, within).await?;
        if !is_complete(&job) {
            bail!("{name} ended, but not Complete:\n{}", self.explain(name).await);
        }
        Ok(job)
    }

    /// Waits until the job has Failed and returns reason and message of its Failed condition.
    pub async fn wait_failed(&self, name: &str, within: Duration) -> Result<(String, String)> {
        let job = self.wait_terminal(name, within).await?;
        let status = job.status.context("a status")?;
        let Some(failed) = condition::find(&status.conditions, condition::FAILED) else {
            bail!("{name} ended, but not Failed:\n{}", self.explain(name).await);
        };
        Ok((failed.reason.clone(), failed.message.clone()))
    }

    /// Waits until the job's current generation is Complete or Failed.
    pub async fn wait_terminal(&self, name: &str, within: Duration) -> Result<TransferJob> {
        self.wait_for(name, within, "over", |job| {
            let status = job.status.as_ref();
            status.is_some_and(|status| {
                status.observed_generation == job.metadata.generation
                    && status.phase.is_some_and(Phase::is_terminal)
            })
        })
        .await
    }

    /// Waits until some target reports at least so many bytes, or has been seen Active.
    pub async fn wait_moving(&self, name: &str, bytes: i64, within: Duration) -> Result<TransferJob> {
        self.wait_for(name, within, "moving", |job| {
            let progress = job.status.as_ref().and_then(|status| status.progress.as_ref());
            progress.is_some_and(|progress| progress.bytes_done >= bytes.max(1))
        })
        .await
    }

    /// Waits until the partial files on a node hold at least so many bytes together: bytes move, whatever a status says.
    pub async fn wait_partial(&self, node: &str, bytes: u64, within: Duration) -> Result<()> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let mut sum = 0;
            for volume in self.agent(node).volumes().values() {
                sum += crate::data::partial_bytes(volume);
            }
            if sum >= bytes {
                return Ok(());
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "only {sum} bytes are in partial files of {node} after {within:?}"
            );
            tokio::time::sleep(Duration::from_millis(2)).await; // polls files, which give no event
        }
    }

    /// Waits until the job, which exists or has existed, is gone.
    pub async fn wait_gone(&self, name: &str, within: Duration) -> Result<()> {
        let gone = kube::runtime::wait::await_condition(self.jobs(), name, |job: Option<&TransferJob>| {
            job.is_none()
        });
        match tokio::time::timeout(within, gone).await {
            Ok(waited) => waited.map(drop).context("watch of the job"),
            Err(_) => bail!("{name} is not gone after {within:?}:\n{}", self.explain(name).await),
        }
    }

    /// Waits until no task of the job is left.
    pub async fn wait_no_tasks(&self, name: &str, within: Duration) -> Result<()> {
        let deadline = tokio::time::Instant::now() + within;
        while !self.tasks_of(name).await?.is_empty() {
            ensure!(tokio::time::Instant::now() < deadline, "tasks are left:\n{}", self.explain(name).await);
            tokio::time::sleep(Duration::from_millis(50)).await; // polls with a deadline
        }
        Ok(())
    }

    /// Writes of our own kinds that the API server has answered, as it counts them itself, by resource and verb.
    pub fn api_writes(&self) -> Result<BTreeMap<String, u64>> {
        let metrics = self.plane.kubectl(&["get", "--raw", "/metrics"])?;
        let label = |line: &str, name: &str| -> Option<String> {
            let (_, rest) = line.split_once(&format!("{name}=\""))?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        let mut writes = BTreeMap::new();
        for line in metrics.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
            let verb = label(line, "verb").unwrap_or_default();
            let is_write = ["POST", "PUT", "PATCH", "APPLY", "DELETE"].contains(&verb.as_str());
            if !is_write || label(line, "group").as_deref() != Some("nixl-transfer.io") {
                continue;
            }
            let what = ["resource", "subresource", "code"]
                .map(|name| label(line, name).unwrap_or_default())
                .join("/");
            let value = line.rsplit(' ').next().context("a metric has a value")?.parse::<f64>()?;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count
            let count = value as u64;
            *writes.entry(format!("{verb} {what}")).or_default() += count;
        }
        Ok(writes)
    }

    /// The tasks of a job, by attempt.
    pub async fn tasks_of(&self, name: &str) -> Result<Vec<TransferTask>> {
        let labels = format!("nixl-transfer.io/job={name}");
        let mut tasks = self.tasks().list(&ListParams::default().labels(&labels)).await?.items;
        tasks.sort_by_key(|task| (task.spec.run, task.spec.target.node_name.clone(), task.spec.attempt));
        Ok(tasks)
    }

    /// The job's and its tasks' state for an error message; without metadata, which is a capability.
    pub async fn explain(&self, name: &str) -> String {
        let mut text = String::new();
        match self.jobs().get_opt(name).await {
            Ok(Some(job)) => {
                let _ = writeln!(text, "{}", serde_yaml::to_string(&job.status).unwrap_or_default());
            }
            other => {
                let _ = writeln!(text, "job: {other:?}");
            }
        }
        for mut task in self.tasks_of(name).await.unwrap_or_default() {
            let task_name = task.name_any();
            if let Some(status) = &mut task.status {
                if let Some(side) = &mut status.source {
                    side.agent_metadata = side.agent_metadata.take().map(|_| "<present>".into());
                }
                if let Some(side) = &mut status.target {
                    side.rdma_metadata = side.rdma_metadata.take().map(|_| "<present>".into());
                }
            }
            let _ = writeln!(
                text,
                "task {task_name} attempt {} cancel {}:\n{}",
                task.spec.attempt,
                task.spec.cancel,
                serde_yaml::to_string(&task.status).unwrap_or_default()
            );
        }
        text + &self.logs()
    }
}

/// Whether the job is Complete.
pub fn is_complete(job: &TransferJob) -> bool {
    job.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, condition::COMPLETE))
}

/// The job's condition of a type as (status, reason, message).
pub fn condition_of(job: &TransferJob, kind: &str) -> Option<(String, String, String)> {
    let found = condition::find(&job.status.as_ref()?.conditions, kind)?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

/// What came between two counts of writes.
pub fn writes_between(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let new = |(what, count): (&String, &u64)| (what.clone(), count - before.get(what).copied().unwrap_or(0));
    after.iter().map(new).filter(|(_, count)| *count > 0).collect()
}
