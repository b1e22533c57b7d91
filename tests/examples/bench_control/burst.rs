//! Many jobs at once, from the first create until the last is Complete, and what that cost on the API.

use std::{
    collections::BTreeSet,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Api, Client, ResourceExt,
    api::PostParams,
    runtime::{WatchStreamExt, watcher},
};
use nixl_transfer_crds::{TransferJob, job::status::Phase};
use nixl_transfer_tests::{
    Cluster,
    cluster::NAMESPACE,
    jobs::{one_to_one, writes_between},
};
use serde_json::json;
use tokio::time::timeout;

use crate::{LONGEST, fake::Fakes};

/// Users' creates at once.
const USERS: usize = 16;
/// The last events are on their way for less than this.
const QUIET: Duration = Duration::from_millis(500);
const LABEL: &str = "bench-burst";

pub struct Burst<'a> {
    cluster: &'a Cluster,
    client: Client,
    nodes: Vec<String>,
    fakes: Fakes,
    bursts: usize,
    jobs: usize,
}

impl<'a> Burst<'a> {
    pub fn new(cluster: &'a Cluster, client: Client, nodes: Vec<String>, fakes: Fakes) -> Self {
        Self { cluster, client, nodes, fakes, bursts: 0, jobs: 0 }
    }

    /// How many jobs there are; none is deleted.
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    pub async fn run(&mut self, count: usize) -> Result<(Duration, String)> {
        self.bursts += 1;
        let jobs = (0..count).map(|at| self.job(at)).collect::<Result<Vec<_>>>()?;
        self.jobs += count;
        let names = jobs.iter().map(ResourceExt::name_any).collect();
        let (writes, sent) = (self.cluster.api_writes()?, self.sent());
        let api: Api<TransferJob> = Api::namespaced(self.client.clone(), NAMESPACE);
        let all = tokio::spawn(complete(api.clone(), self.bursts, names));
        let since = Instant::now();
        let create = |job| {
            let api = api.clone();
            async move { api.create(&PostParams::default(), &job).await.map(drop) }
        };
        stream::iter(jobs).map(create).buffer_unordered(USERS).try_collect::<()>().await?;
        timeout(LONGEST, all).await.context("not all are Complete in time")???;
        let took = since.elapsed();
        self.quiet().await;
        let (more, sent) = (self.cluster.api_writes()?, (self.sent().0 - sent.0, self.sent().1 - sent.1));
        let writes: u64 = writes_between(&writes, &more).values().sum();
        Ok((took, format!("writes={writes} events={} ideal={}", sent.0, 2 * sent.1)))
    }

    /// Bytes to the fake agents, and to one who sees all.
    fn sent(&self) -> (u64, u64) {
        let bytes = |counted: &crate::watch::Counted| counted.bytes.load(Ordering::Relaxed);
        (bytes(&self.fakes.agents), bytes(&self.fakes.all))
    }

    /// Returns when no event comes any more.
    async fn quiet(&self) {
        let mut before = self.sent();
        loop {
            tokio::time::sleep(QUIET).await; // an interval in which nothing may come
            let now = self.sent();
            if now == before {
                return;
            }
            before = now;
        }
    }

    /// From each node to the next one; no two have one destination.
    fn job(&self, at: usize) -> Result<TransferJob> {
        let number = self.jobs + at;
        let node = |at: usize| self.nodes[at % self.nodes.len()].as_str();
        let (name, path) = (format!("job-{number}"), format!("file-{number}"));
        let mut job = one_to_one(&name, (node(number), "file"), (node(number + 1), &path));
        job["metadata"]["labels"] = json!({LABEL: self.bursts.to_string()});
        Ok(serde_json::from_value(job)?)
    }
}

async fn complete(api: Api<TransferJob>, burst: usize, mut names: BTreeSet<String>) -> Result<()> {
    let config = watcher::Config::default().labels(&format!("{LABEL}={burst}"));
    let mut events = std::pin::pin!(watcher(api, config).applied_objects());
    while !names.is_empty() {
        let job = events.try_next().await?.context("the watch has ended")?;
        match job.status.as_ref().and_then(|status| status.phase) {
            Some(Phase::Complete) => drop(names.remove(&job.name_any())),
            Some(Phase::Failed) => bail!("{} has failed: {:?}", job.name_any(), job.status),
            _ => {}
        }
    }
    Ok(())
}
