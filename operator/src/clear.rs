//! Removes all TransferTasks before an uninstall, while the agents are still there to end what they do: afterwards nobody would
//! remove the finalizers, and a namespace with such a task could not be deleted. TransferJobs stay. May be run again after a
//! failure at any point.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
};
use nixl_transfer_crds::{
    TransferTask,
    names::{OPERATOR_MANAGER, TASK_FINALIZER},
};
use serde_json::json;
use tokio::{sync::oneshot, task::JoinSet};
use tracing::{info, warn};

use crate::{
    config::Clear,
    leader::{Timing, elect::Candidate, fence::Fence},
    metrics::Metrics,
};

/// Between two looks: agents take seconds to end what they do.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A Lease that nobody renews lapses in a quarter of it.
const LED_WITHIN: Duration = Duration::from_secs(60);
/// Tasks of one answer.
const PAGE: u32 = 500;

/// Stops the operators, deletes every task, and waits until the agents are done with each, or until the deadline; then the
/// finalizers go all the same.
pub async fn clear(clear: &Clear, client: &Client) -> Result<()> {
    let patience = Duration::from_secs(clear.timeout_seconds);
    stop_operators(clear, client, Instant::now() + patience).await?;
    // Whoever leads all the same, perhaps where the API server is not reached, ends when it sees that it does not any more.
    let mut leading = JoinSet::new();
    let release = lead(clear, client, &mut leading).await?;
    let cleared = tasks(client, Instant::now() + patience).await;
    // The candidate may have lost the Lease, and then there is nothing to let go of.
    let _ = release.send(true);
    if let Some(ended) = leading.join_next().await {
        let ended = ended.context("the election ended unexpectedly")?;
        ended.map_err(|loss| anyhow::anyhow!("the Lease was lost while tasks were cleared: {loss}"))?;
    }
    cleared
}

async fn stop_operators(clear: &Clear, client: &Client, deadline: Instant) -> Result<()> {
    let name = &clear.deployment;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &clear.namespace);
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    match deployments.patch_scale(name, &PatchParams::default(), &none).await {
        Ok(_) => {}
        Err(kube::Error::Api(answer)) if answer.code == 404 => {
            info!(name, "there is no such Deployment; nobody starts anything anew");
            return Ok(());
        }
        Err(error) => return Err(error).context(format!("--deployment {name}: cannot be scaled to nothing")),
    }
    loop {
        let scale = deployments.get_scale(name).await.context("the Deployment's scale")?;
        if scale.status.is_none_or(|status| status.replicas == 0) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(
                "--deployment {name}: its pods have not ended within {} s; look at them",
                clear.timeout_seconds
            );
        }
        tokio::time::sleep(LOOK_AGAIN).await; // polls, with a deadline
    }
}

/// Takes the Lease, and renews it until the end of what is returned.
async fn lead(
    clear: &Clear,
    client: &Client,
    leading: &mut JoinSet<Result<(), crate::leader::decide::Loss>>,
) -> Result<oneshot::Sender<bool>> {
    let leases = Api::namespaced(client.clone(), &clear.namespace);
    let timing = Timing::of(Duration::from_secs(15));
    let metrics = Metrics::new().context("metrics")?;
    let identity = crate::leader::identity(clear.identity.as_deref());
    let candidate = Candidate::new(leases, identity, timing, Fence::closed(timing.deadline), metrics);
    let ((acquired, leads), (release, released)) = (oneshot::channel(), oneshot::channel());
    leading.spawn(candidate.run(acquired, released));
    match tokio::time::timeout(LED_WITHIN, leads).await {
        Ok(Ok(())) => Ok(release),
        _ => bail!("another operator still holds its Lease; look for one that was started by hand"),
    }
}

async fn tasks(client: &Client, deadline: Instant) -> Result<()> {
    loop {
        let late = Instant::now() >= deadline;
        let all = list(client).await?;
        if all.is_empty() {
            info!("no task is left");
            return Ok(());
        }
        info!(tasks = all.len(), "waiting for the agents to end them");
        for task in &all {
            let api = Api::<TransferTask>::namespaced(client.clone(), &task.namespace().unwrap_or_default());
            let done = if task.metadata.deletion_timestamp.is_none() {
                delete(&api, task).await
            } else if late || is_over(task) {
                if late && !is_over(task) {
                    let (namespace, name) = (task.namespace(), task.name_any());
                    warn!(
                        namespace,
                        name,
                        "its agents have not ended it; it goes all the same, and what they keep for it stays"
                    );
                }
                release(&api, task).await
            } else {
                Ok(())
            };
            match done {
                // Gone, or changed meanwhile: the next look finds it as it is.
                Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => {}
                done => done.with_context(|| format!("TransferTask {}", task.name_any()))?,
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await; // polls, with a deadline
    }
}

async fn list(client: &Client) -> Result<Vec<TransferTask>> {
    let api: Api<TransferTask> = Api::all(client.clone());
    let (mut all, mut page) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let list = match api.list(&page).await {
            // Without the kind there are no tasks.
            Err(kube::Error::Api(answer)) if answer.code == 404 => return Ok(all),
            list => list.context("TransferTasks cannot be listed")?,
        };
        all.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(all),
        }
    }
}

fn is_over(task: &TransferTask) -> bool {
    let status = task.status.as_ref();
    let source =
        status.and_then(|status| status.source.as_ref()).is_some_and(|half| half.state.is_terminal());
    let target =
        status.and_then(|status| status.target.as_ref()).is_some_and(|half| half.state.is_terminal());
    source && target
}

async fn delete(api: &Api<TransferTask>, task: &TransferTask) -> Result<(), kube::Error> {
    let this = Preconditions { uid: task.uid(), resource_version: None };
    api.delete(&task.name_any(), &DeleteParams::default().preconditions(this)).await.map(drop)
}

async fn release(api: &Api<TransferTask>, task: &TransferTask) -> Result<(), kube::Error> {
    let kept: Vec<&String> =
        task.finalizers().iter().filter(|finalizer| *finalizer != TASK_FINALIZER).collect();
    // With the version it is the object that was looked at, and no finalizer of another is lost.
    let metadata = json!({"uid": task.uid(), "resourceVersion": task.resource_version(), "finalizers": kept});
    let parameters = PatchParams { field_manager: Some(OPERATOR_MANAGER.into()), ..PatchParams::default() };
    api.patch(&task.name_any(), &parameters, &Patch::Merge(json!({"metadata": metadata}))).await.map(drop)
}
