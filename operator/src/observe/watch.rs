//! One watch: list, watch, watch again, list again when the API server has forgotten our version. Its own loop and not
//! kube's `watcher`, because that hides bookmarks and reconnections, and with them whether a silent watch is alive.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, time::timeout};

use crate::{
    control::Message,
    plan::backoff,
    serve::{Health, Watched},
    world::{Change, Observation},
};

/// The API server ends a watch after this long, and we open the next: a connection that died silently is found.
const WATCH_SECONDS: u32 = 40;
/// No watch is silent for longer than it lives, and a little.
const SILENCE: Duration = Duration::from_secs(50);
/// Objects per page of a list.
const PAGE: u32 = 500;
/// How long a list may take per page.
const LIST: Duration = Duration::from_secs(60);

/// Where a watch reports.
pub struct Sink {
    /// To the thread that owns the world.
    pub messages: mpsc::Sender<Message>,
    /// When the watch was last alive.
    pub health: Arc<Health>,
    /// Which watch it is.
    pub watched: Watched,
}

/// Why a watch has to begin again.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error("no sign of life for {} s", SILENCE.as_secs())]
    Silent,
    #[error("the API server has forgotten our version")]
    Expired,
    #[error("nobody listens any more")]
    Closed,
}

/// Follows one kind for ever; returns when nobody listens any more.
pub async fn follow<K>(api: Api<K>, kind: fn(Change<K>) -> Observation, sink: Sink)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut version: Option<String> = None;
    let mut failures = 0;
    loop {
        let before = version.clone();
        let result = async {
            let from = match &version {
                Some(version) => version.clone(),
                None => list(&api, kind, &sink).await?,
            };
            version = Some(from.clone());
            watch(&api, from, kind, &sink, &mut version).await
        }
        .await;
        match result {
            Ok(()) => failures = 0,
            Err(Interrupted::Closed) => return,
            Err(Interrupted::Expired) => version = None,
            Err(error) => {
                // A watch that brought something before it broke was no failure to reach the API server.
                failures = if version != before { 1 } else { failures + 1 };
                explain(sink.watched, &error);
                if tell(&sink, false).await.is_err() {
                    return;
                }
                let pause = backoff::pause(failures.min(6), 1, &format!("{:?}", sink.watched));
                tokio::time::sleep(pause.unsigned_abs() / 2).await;
            }
        }
    }
}

/// Says once more what is wrong, with what to do where we know.
fn explain(watched: Watched, error: &Interrupted) {
    let advice = match error {
        Interrupted::Api(kube::Error::Api(status)) if status.code == 403 => {
            "the operator's ClusterRole must allow list and watch of this kind"
        }
        Interrupted::Api(kube::Error::Api(status)) if status.code == 404 => {
            "the custom resource definitions of nixl-transfer.io are not installed"
        }
        _ => "trying again",
    };
    tracing::warn!(watch = ?watched, %error, advice, "watch interrupted");
}

async fn list<K>(api: &Api<K>, kind: fn(Change<K>) -> Observation, sink: &Sink) -> Result<String, Interrupted>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let mut parameters = ListParams::default().limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = timeout(LIST, api.list(&parameters)).await.map_err(|_| Interrupted::Silent)??;
        sink.health.touch(sink.watched);
        all.extend(page.items);
        match page.metadata.continue_ {
            Some(next) if !next.is_empty() => parameters = parameters.continue_token(&next),
            _ => {
                let version = page.metadata.resource_version.unwrap_or_default();
                send(sink, kind(Change::All(all, version.clone()))).await?;
                return Ok(version);
            }
        }
    }
}

async fn watch<K>(
    api: &Api<K>,
    from: String,
    kind: fn(Change<K>) -> Observation,
    sink: &Sink,
    version: &mut Option<String>,
) -> Result<(), Interrupted>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let parameters = WatchParams::default().timeout(WATCH_SECONDS);
    let opened = timeout(SILENCE, api.watch(&parameters, &from)).await.map_err(|_| Interrupted::Silent)?;
    let mut events = opened.map_err(forgotten)?.boxed();
    sink.health.touch(sink.watched);
    tell(sink, true).await?;
    loop {
        let next = timeout(SILENCE, events.try_next()).await.map_err(|_| Interrupted::Silent)?;
        let Some(event) = next.map_err(forgotten)? else { return Ok(()) };
        sink.health.touch(sink.watched);
        let change = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                *version = object.resource_version();
                Change::Put(object)
            }
            WatchEvent::Deleted(object) => {
                *version = object.resource_version();
                Change::Gone(Box::new(object.meta().clone()))
            }
            WatchEvent::Bookmark(bookmark) => {
                *version = Some(bookmark.metadata.resource_version);
                continue;
            }
            WatchEvent::Error(status) => return Err(forgotten(kube::Error::Api(status))),
        };
        send(sink, kind(change)).await?;
    }
}

fn forgotten(error: kube::Error) -> Interrupted {
    match error {
        kube::Error::Api(status) if status.code == 410 => Interrupted::Expired,
        error => Interrupted::Api(error),
    }
}

async fn tell(sink: &Sink, alive: bool) -> Result<(), Interrupted> {
    sink.messages.send(Message::Watching(sink.watched, alive)).await.map_err(|_| Interrupted::Closed)
}

async fn send(sink: &Sink, observation: Observation) -> Result<(), Interrupted> {
    sink.messages
        .send(Message::Observed(sink.watched, Box::new(observation)))
        .await
        .map_err(|_| Interrupted::Closed)
}
