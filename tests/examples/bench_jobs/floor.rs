//! What a job costs before anybody does anything for it: the writes and watches of one job of one hop, with the bodies of
//! a real one, on kinds of the same schema in another group that nobody else watches. The actors only react.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream::select};
use kube::{
    ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, wait::await_condition, watcher},
};
use nixl_transfer_tests::{
    Cluster,
    copies::{self, Objects, object, objects},
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};

use crate::LONGEST;

/// The kinds and the actors. They end with it.
pub struct Floor {
    jobs: Objects,
    tasks: Objects,
    job: Value,
    _actors: JoinSet<Result<()>>,
}

impl Floor {
    /// `job` and `task` are those of a job that is Complete.
    pub async fn start(cluster: &Cluster, job: Value, task: Value) -> Result<Self> {
        copies::define(cluster)?;
        let objects = |kind| objects(cluster.client(), kind);
        let mut actors = JoinSet::new();
        actors.spawn(operate(objects("TransferJob"), objects("TransferTask"), job.clone(), task.clone()));
        for side in ["source", "target"] {
            actors.spawn(act(objects("TransferTask"), side, task["status"][side].clone()));
        }
        Ok(Self { jobs: objects("TransferJob"), tasks: objects("TransferTask"), job, _actors: actors })
    }

    /// From the user's create to the event that tells the user of the end.
    pub async fn run(&self, name: &str) -> Result<Duration> {
        let job = object("TransferJob", name, &self.job)?;
        let since = Instant::now();
        self.jobs.create(&PostParams::default(), &job).await?;
        let complete = |job: Option<&DynamicObject>| job.is_some_and(|job| phase(job) == Some("Complete"));
        timeout(LONGEST, await_condition(self.jobs.clone(), name, complete)).await.context("no end")??;
        let took = since.elapsed();
        self.jobs.delete(name, &DeleteParams::default()).await?;
        self.tasks.delete(name, &DeleteParams::default()).await?;
        Ok(took)
    }
}

/// First status and task for each job that has none; Complete when both sides are done.
async fn operate(jobs: Objects, tasks: Objects, job: Value, task: Value) -> Result<()> {
    let events = |api: &Objects| watcher(api.clone(), watcher::Config::default()).applied_objects().boxed();
    let kinds = select(events(&jobs).map_ok(|job| (true, job)), events(&tasks).map_ok(|task| (false, task)));
    let mut kinds = std::pin::pin!(kinds);
    while let Some((is_job, object_seen)) = kinds.try_next().await? {
        let name = object_seen.name_any();
        if is_job && phase(&object_seen).is_none() {
            let mut first = job["status"].clone();
            first["phase"] = json!("Preparing");
            status(&jobs, &name, first).await?;
            tasks.create(&PostParams::default(), &object("TransferTask", &name, &task)?).await?;
        } else if !is_job && both(&object_seen, "Succeeded") {
            status(&jobs, &name, job["status"].clone()).await?;
        }
    }
    Ok(())
}

/// One agent: prepared when it sees the task, done when it sees both prepared.
async fn act(tasks: Objects, side: &'static str, half: Value) -> Result<()> {
    let events = watcher(tasks.clone(), watcher::Config::default()).applied_objects();
    let mut events = std::pin::pin!(events);
    let mut written = (String::new(), "");
    while let Some(task) = events.try_next().await? {
        let next = match state(&task, side) {
            None => "Prepared",
            Some("Prepared") if ["source", "target"].iter().all(|side| state(&task, side).is_some()) => {
                "Succeeded"
            }
            Some(_) => continue,
        };
        // An event that was on its way when this side wrote shows the state before.
        if written == (task.name_any(), next) {
            continue;
        }
        written = (task.name_any(), next);
        let mut half = half.clone();
        half["state"] = json!(next);
        status(&tasks, &task.name_any(), json!({side: half})).await?;
    }
    Ok(())
}

async fn status(api: &Objects, name: &str, status: Value) -> Result<()> {
    let patch = Patch::Merge(json!({"status": status}));
    match api.patch_status(name, &PatchParams::default(), &patch).await {
        // The user was told of the end and has deleted it.
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
        answer => Ok(answer.map(drop)?),
    }
}

fn phase(job: &DynamicObject) -> Option<&str> {
    job.data.pointer("/status/phase")?.as_str()
}

fn state<'a>(task: &'a DynamicObject, side: &str) -> Option<&'a str> {
    task.data.pointer(&format!("/status/{side}/state"))?.as_str()
}

fn both(task: &DynamicObject, wanted: &str) -> bool {
    ["source", "target"].iter().all(|side| state(task, side) == Some(wanted))
}
