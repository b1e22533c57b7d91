//! What jobs cost on the API, by the API server's own count; and what nobody's job costs.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use kube::{
    Api, Resource,
    api::{ListParams, WatchEvent, WatchParams},
};
use nixl_transfer_crds::TransferJob;
use nixl_transfer_tests::{
    Cluster,
    jobs::{one_to_one, writes_between},
};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::{LONGEST, moves};

/// Longer than the jobs take.
const WATCH_SECONDS: u32 = 290;
/// Events come within this time after the write.
const LATE: Duration = Duration::from_secs(2);

/// So many jobs, one after the other, from the first create until both halves of the last one are over; deletion apart.
/// Every write that changes something is an event, so what is more than the events changed nothing.
pub async fn of_jobs(
    cluster: &Cluster,
    name: &str,
    count: usize,
    from: &str,
    to: &str,
) -> Result<(Duration, String)> {
    let mut watches = JoinSet::new();
    let events = Arc::new(AtomicU64::new(0));
    count_events(cluster.jobs(), &mut watches, &events).await?;
    count_events(cluster.tasks(), &mut watches, &events).await?;
    let (before, since) = (cluster.api_writes()?, Instant::now());
    let names: Vec<String> = (0..count).map(|at| format!("{name}-{at}")).collect();
    for (at, name) in names.iter().enumerate() {
        let job: TransferJob =
            serde_json::from_value(one_to_one(name, ("a", from), ("b", &format!("{to}-{at}"))))?;
        cluster.jobs().create(&Default::default(), &job).await?;
        cluster.wait_complete(name, LONGEST).await?;
        wait_both_over(cluster, name).await?;
    }
    let took = since.elapsed();
    let writes = writes_between(&before, &cluster.api_writes()?);
    let (done, refused) = by_answer(&writes);
    let deadline = Instant::now() + LATE;
    while events.load(Ordering::Relaxed) < done && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await; // polls with a deadline, which is the answer as well
    }
    let idle = done.saturating_sub(events.load(Ordering::Relaxed));
    for name in &names {
        moves::remove(cluster, name).await?;
    }
    Ok((took, format!(" writes={done} idle={idle} refused={refused}")))
}

/// What is written of our kinds while nothing happens.
pub async fn of_nothing(cluster: &Cluster, seconds: u64) -> Result<(Duration, String)> {
    let (before, since) = (cluster.api_writes()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await; // the time that is measured
    let writes = writes_between(&before, &cluster.api_writes()?);
    let (done, refused) = by_answer(&writes);
    Ok((since.elapsed(), format!(" writes={}", done + refused)))
}

/// Writes that were done, and others. The answer's code stands last.
fn by_answer(writes: &BTreeMap<String, u64>) -> (u64, u64) {
    let is_done = |what: &str| what.rsplit('/').next().is_some_and(|code| code.starts_with('2'));
    writes.iter().fold(
        (0, 0),
        |(done, refused), (what, count)| {
            if is_done(what) { (done + count, refused) } else { (done, refused + count) }
        },
    )
}

async fn count_events<K>(api: Api<K>, watches: &mut JoinSet<()>, events: &Arc<AtomicU64>) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let version = api.list(&ListParams::default().limit(1)).await?.metadata.resource_version;
    let version = version.context("a list has a version")?;
    let parameters = WatchParams::default().timeout(WATCH_SECONDS);
    let events = events.clone();
    watches.spawn(async move {
        let Ok(stream) = api.watch(&parameters, &version).await else { return };
        let mut stream = std::pin::pin!(stream);
        while let Ok(Some(event)) = stream.try_next().await {
            if !matches!(event, WatchEvent::Bookmark(_) | WatchEvent::Error(_)) {
                events.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    Ok(())
}

async fn wait_both_over(cluster: &Cluster, job: &str) -> Result<()> {
    let deadline = Instant::now() + LONGEST;
    loop {
        let task = cluster.tasks_of(job).await?.pop().context("a job has a task")?;
        let status = task.status.unwrap_or_default();
        let source = status.source.is_some_and(|half| half.state.is_terminal());
        if source && status.target.is_some_and(|half| half.state.is_terminal()) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "a half of {job} does not end");
        tokio::time::sleep(Duration::from_millis(20)).await; // polls with a deadline
    }
}
