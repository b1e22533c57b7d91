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
use tokio::{
    sync::oneshot,
    task::{JoinError, JoinSet},
};
use tracing::{info, warn};

use crate::{
    config::Clear,
    leader::{Timing, decide::Loss, elect::Candidate, fence::Fence},
    metrics::Metrics,
};

/// Between two looks: agents take seconds to end what they do.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A Lease that nobody renews lapses in a quarter of it.
const LED_WITHIN: Duration = Duration::from_secs(60);
/// An operator that takes part in no election may finish what it has begun for 10 s.
const QUIET: Duration = Duration::from_secs(12);
/// How long after the deadline the last tasks may take.
const GIVE_UP: Duration = Duration::from_secs(30);
/// Tasks of one answer.
const PAGE: u32 = 500;

/// Stops the operators, deletes every task, and waits until the agents are done with each, or until the deadline; then the
/// finalizers go all the same.
pub async fn clear(clear: &Clear, client: &Client) -> Result<()> {
    let patience = Duration::from_secs(clear.timeout_seconds);
    let quiet =
        if stop_operators(clear, client, Instant::now() + patience).await? { QUIET } else { Duration::ZERO };
    // Whoever leads all the same, perhaps where the API server is not reached, ends when it sees that it does not any more.
    let mut leading = JoinSet::new();
    let release = lead(clear, client, &mut leading).await?;
    let lost = |ended: Option<Result<Result<(), Loss>, JoinError>>| match ended {
        Some(Ok(Err(loss))) => {
            bail!("the Lease was lost while tasks were cleared: {loss}; is an operator started again?")
        }
        Some(Err(error)) => Err(error).context("the election ended unexpectedly"),
        Some(Ok(Ok(()))) | None => Ok(()),
    };
    tokio::select! {
        cleared = tasks(client, Instant::now() + patience, quiet) => cleared?,
        // Another operator plans from now on: nothing may be taken from it.
        ended = leading.join_next() => return lost(ended),
    }
    // An error means that it has ended, which the next line finds.
    let _ = release.send(true);
    lost(leading.join_next().await)
}

/// Scales them to nothing. False when there is no such Deployment.
async fn stop_operators(clear: &Clear, client: &Client, deadline: Instant) -> Result<bool> {
    let name = &clear.deployment;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &clear.namespace);
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    match deployments.patch_scale(name, &PatchParams::default(), &none).await {
        Ok(_) => {}
        Err(kube::Error::Api(answer)) if answer.code == 404 => {
            info!(name, "there is no such Deployment; nobody starts anything anew");
            return Ok(false);
        }
        Err(error) => return Err(error).context(format!("--deployment {name}: cannot be scaled to nothing")),
    }
    loop {
        // Pods that are ending do not count: what they still write is waited for later.
        let scale = deployments.get_scale(name).await.context("the Deployment's scale")?;
        if scale.status.is_none_or(|status| status.replicas == 0) {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            let seconds = clear.timeout_seconds;
            bail!("--deployment {name}: its pods have not begun to end within {seconds} s; look at it");
        }
        tokio::time::sleep(LOOK_AGAIN).await; // polls, with a deadline
    }
}

/// Takes the Lease, and renews it until the end of what is returned.
async fn lead(
    clear: &Clear,
    client: &Client,
    leading: &mut JoinSet<Result<(), Loss>>,
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

/// Looks until there was no task for `quiet`. What fails is tried again until some time after the deadline.
async fn tasks(client: &Client, deadline: Instant, quiet: Duration) -> Result<()> {
    let mut none_since = None;
    loop {
        let is_over = Instant::now() >= deadline + GIVE_UP;
        match look(client, Instant::now() >= deadline).await {
            Ok(0) => {
                if none_since.get_or_insert_with(Instant::now).elapsed() >= quiet {
                    info!("no task is left");
                    return Ok(());
                }
            }
            Ok(left) if is_over => {
                bail!(
                    "{left} TransferTasks are still there: they have finalizers of others, or somebody makes them anew"
                )
            }
            Err(error) if is_over => return Err(error),
            Ok(left) => {
                none_since = None;
                info!(tasks = left, "waiting for the agents to end them");
            }
            Err(error) => {
                none_since = None;
                warn!(error = format!("{error:#}"), "will try again");
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await; // polls, with a deadline
    }
}

/// Does what can be done about each task; gives how many there were.
async fn look(client: &Client, late: bool) -> Result<usize> {
    let all = list(client).await?;
    let mut failed = None;
    for task in &all {
        let api = Api::<TransferTask>::namespaced(client.clone(), &task.namespace().unwrap_or_default());
        let done = if task.metadata.deletion_timestamp.is_none() {
            delete(&api, task).await
        } else if late || is_over(task) {
            if !is_over(task) {
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
            Err(error) => failed = Some((task.name_any(), error)),
            Ok(()) => {}
        }
    }
    match failed {
        Some((name, error)) => Err(error).context(format!("TransferTask {name}")),
        None => Ok(all.len()),
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
