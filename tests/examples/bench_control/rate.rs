//! What the API server takes: the writes of jobs of one hop, with the bodies of a real one, on copies of the kinds that
//! nobody watches, as fast as it answers. The answers are not even read: this side should cost little.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Client,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Request},
};
use nixl_transfer_tests::{
    Cluster,
    copies::{Objects, object, objects},
};
use serde_json::{Value, json};

/// Jobs whose writes are under way at once, as many as the operator has requests.
const AT_ONCE: usize = 16;
/// Of each job: two creates, a job's two states, and two states of each half.
const WRITES: usize = 8;

pub struct Rate {
    client: Client,
    jobs: Objects,
    tasks: Objects,
    job: Value,
    task: Value,
    number: usize,
}

impl Rate {
    /// The copies are defined.
    pub async fn like_the_first_job(cluster: &Cluster, client: Client) -> Result<Self> {
        let job = serde_json::to_value(cluster.jobs().get("job-0").await?)?;
        let task = serde_json::to_value(cluster.tasks_of("job-0").await?.pop().context("a job has a task")?)?;
        let (jobs, tasks) = (objects(client.clone(), "TransferJob"), objects(client.clone(), "TransferTask"));
        Ok(Self { client, jobs, tasks, job, task, number: 0 })
    }

    pub async fn run(&mut self, count: usize) -> Result<(Duration, String)> {
        let numbers = self.number..self.number + count;
        self.number += count;
        let since = Instant::now();
        let each = |number| self.one(format!("job-{number}"));
        stream::iter(numbers).map(each).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let took = since.elapsed();
        for api in [&self.jobs, &self.tasks] {
            api.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        }
        Ok((took, format!("writes={}", count * WRITES)))
    }

    async fn one(&self, name: String) -> Result<()> {
        self.create(&self.jobs, &object("TransferJob", &name, &self.job)?).await?;
        let mut first = self.job["status"].clone();
        first["phase"] = json!("Preparing");
        self.status(&self.jobs, &name, first).await?;
        self.create(&self.tasks, &object("TransferTask", &name, &self.task)?).await?;
        for state in ["Prepared", "Succeeded"] {
            for side in ["source", "target"] {
                let mut half = self.task["status"][side].clone();
                half["state"] = json!(state);
                self.status(&self.tasks, &name, json!({side: half})).await?;
            }
        }
        self.status(&self.jobs, &name, self.job["status"].clone()).await
    }

    async fn create(&self, api: &Objects, object: &DynamicObject) -> Result<()> {
        let request = Request::new(api.resource_url());
        let request = request.create(&PostParams::default(), serde_json::to_vec(object)?)?;
        Ok(self.client.request_text(request).await.map(drop)?)
    }

    async fn status(&self, api: &Objects, name: &str, status: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"status": status}));
        let request = Request::new(api.resource_url());
        let request = request.patch_subresource("status", name, &PatchParams::default(), &patch)?;
        Ok(self.client.request_text(request).await.map(drop)?)
    }
}
