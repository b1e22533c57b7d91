//! Follows the objects of one kind on the API server: list, watch, watch again, list again when the API server has
//! forgotten our version. Its own loop and not kube's `watcher`, because that hides bookmarks and reconnections, and with
//! them whether a silent watch is alive. Operator and agents use it; it decides nothing.

use std::{fmt::Debug, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// The API server ends a watch after this long, and we open the next: a connection that died silently is found.
const WATCH_SECONDS: u32 = 40;
/// No watch is silent for longer than it lives, and a little.
const SILENCE: Duration = Duration::from_secs(50);
/// Objects per page of a list.
const PAGE: u32 = 500;
/// How long a list may take per page.
const LIST: Duration = Duration::from_secs(60);
/// Pauses between failures: from the first to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// What has changed.
#[derive(Debug)]
pub enum Change<K> {
    /// Everything there is, at this resource version; what is not in it is gone.
    All(Vec<K>, String),
    /// One object, new or changed.
    Put(K),
    /// One object is gone.
    Gone(Box<ObjectMeta>),
}

/// Where changes and signs of life go.
pub trait Sink<K>: Send {
    /// The watch is alive: an event, a bookmark, a page of a list, or a watch that the API server opened.
    fn alive(&mut self);
    /// Hears that the watch was opened, or interrupted; false when nobody listens any more.
    fn watching(&mut self, _open: bool) -> impl Future<Output = bool> + Send {
        std::future::ready(true)
    }
    /// Takes away from an object, as soon as it has come, what need not be held.
    fn lighten(&self, _object: &mut K) {}
    /// Takes a change; false when nobody listens any more.
    fn take(&mut self, change: Change<K>) -> impl Future<Output = bool> + Send;
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

/// Follows the kind, restricted by a field selector or empty, until nobody listens any more. `what` names it in logs.
pub async fn follow<K, S>(api: Api<K>, fields: &str, what: &str, mut sink: S)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    S: Sink<K>,
{
    let mut version: Option<String> = None;
    let mut pauses = pauses();
    loop {
        let before = version.clone();
        let result = async {
            let from = match &version {
                Some(version) => version.clone(),
                None => list(&api, fields, &mut sink).await?,
            };
            version = Some(from.clone());
            watch(&api, fields, from, &mut sink, &mut version).await
        }
        .await;
        match result {
            Ok(()) => pauses = self::pauses(),
            Err(Interrupted::Closed) => return,
            Err(Interrupted::Expired) => version = None,
            Err(error) => {
                // A watch that brought something before it broke was no failure to reach the API server.
                if version != before {
                    pauses = self::pauses();
                }
                explain(what, &error);
                if !sink.watching(false).await {
                    return;
                }
                tokio::time::sleep(pauses.next().unwrap_or(PAUSES.1)).await; // back-off
            }
        }
    }
}

/// Lists once, as of now, and tries until it works; false when nobody listens any more. For one that must not rely on its
/// watch being up to date.
pub async fn list_now<K, S>(api: Api<K>, what: &str, mut sink: S) -> bool
where
    K: Resource + Clone + Debug + DeserializeOwned,
    S: Sink<K>,
{
    let mut pauses = pauses();
    loop {
        match list(&api, "", &mut sink).await {
            Ok(_) => return true,
            Err(Interrupted::Closed) => return false,
            Err(error) => {
                explain(what, &error);
                tokio::time::sleep(pauses.next().unwrap_or(PAUSES.1)).await; // back-off
            }
        }
    }
}

fn pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(PAUSES.0)
        .with_max_delay(PAUSES.1)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Says once more what is wrong, with what to do where we know.
fn explain(what: &str, error: &Interrupted) {
    let advice = match error {
        Interrupted::Api(kube::Error::Api(status)) if status.code == 403 => {
            "RBAC must allow list and watch of this kind"
        }
        Interrupted::Api(kube::Error::Api(status)) if status.code == 404 => {
            "the custom resource definitions of nixl-transfer.io are not installed"
        }
        _ => "trying again",
    };
    tracing::warn!(watch = what, %error, advice, "watch interrupted");
}

async fn list<K, S>(api: &Api<K>, fields: &str, sink: &mut S) -> Result<String, Interrupted>
where
    K: Resource + Clone + Debug + DeserializeOwned,
    S: Sink<K>,
{
    let mut parameters = ListParams::default().limit(PAGE).fields(fields);
    let mut all = Vec::new();
    loop {
        let page = timeout(LIST, api.list(&parameters)).await.map_err(|_| Interrupted::Silent)??;
        sink.alive();
        all.extend(page.items.into_iter().map(|mut object| {
            sink.lighten(&mut object);
            object
        }));
        match page.metadata.continue_ {
            Some(next) if !next.is_empty() => parameters = parameters.continue_token(&next),
            _ => {
                let version = page.metadata.resource_version.unwrap_or_default();
                let taken = sink.take(Change::All(all, version.clone())).await;
                return if taken { Ok(version) } else { Err(Interrupted::Closed) };
            }
        }
    }
}

async fn watch<K, S>(
    api: &Api<K>,
    fields: &str,
    from: String,
    sink: &mut S,
    version: &mut Option<String>,
) -> Result<(), Interrupted>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    S: Sink<K>,
{
    let parameters = WatchParams::default().timeout(WATCH_SECONDS).fields(fields);
    let opened = timeout(SILENCE, api.watch(&parameters, &from)).await.map_err(|_| Interrupted::Silent)?;
    let mut events = opened.map_err(forgotten)?.boxed();
    sink.alive();
    if !sink.watching(true).await {
        return Err(Interrupted::Closed);
    }
    loop {
        let next = timeout(SILENCE, events.try_next()).await.map_err(|_| Interrupted::Silent)?;
        let Some(event) = next.map_err(forgotten)? else { return Ok(()) };
        sink.alive();
        let change = match event {
            WatchEvent::Added(mut object) | WatchEvent::Modified(mut object) => {
                sink.lighten(&mut object);
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
        if !sink.take(change).await {
            return Err(Interrupted::Closed);
        }
    }
}

fn forgotten(error: kube::Error) -> Interrupted {
    match error {
        kube::Error::Api(status) if status.code == 410 => Interrupted::Expired,
        error => Interrupted::Api(error),
    }
}
