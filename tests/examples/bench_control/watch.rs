//! A watch of tasks that counts the bytes it is sent, as the API server wrote them: kube's own hides them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use futures::{AsyncBufReadExt, StreamExt, stream::BoxStream};
use kube::{
    Client,
    api::{ListParams, Request, WatchParams},
};
use serde_json::Value;
use tokio::sync::Semaphore;

/// As an agent's: the API server ends a watch after this, and the next one is opened.
const SECONDS: u32 = 40;

/// What the watches of one kind of watcher have been sent.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    pub bytes: Arc<AtomicU64>,
    /// Watches that have been opened at least once.
    pub open: Arc<AtomicU64>,
}

/// Follows the tasks of all namespaces that the field selector chooses; `take` hears each one that is new or has changed,
/// and whether it is gone. `begin` bounds how many begin at once.
pub async fn follow(
    client: Client,
    fields: String,
    counted: Counted,
    begin: Arc<Semaphore>,
    mut take: impl FnMut(&Value, bool),
) {
    let mut version: Option<String> = None;
    let mut was_open = false;
    loop {
        let turn = begin.acquire().await;
        let opened = open(&client, &fields, &mut version, &mut take).await;
        drop(turn);
        let mut lines = match opened {
            Ok(lines) => lines,
            Err(error) => {
                eprintln!("watch of {fields:?}: {error:#}");
                version = None;
                tokio::time::sleep(Duration::from_millis(200)).await; // back-off
                continue;
            }
        };
        if !was_open {
            was_open = true;
            counted.open.fetch_add(1, Ordering::Relaxed);
        }
        // The end of a watch, good or bad, is where the next one goes on.
        while let Some(Ok(line)) = lines.next().await {
            counted.bytes.fetch_add(line.len() as u64 + 1, Ordering::Relaxed);
            let Ok(event) = serde_json::from_str::<Value>(&line) else { break };
            let (kind, object) = (event["type"].as_str().unwrap_or_default(), &event["object"]);
            if kind == "ERROR" {
                version = None;
                break;
            }
            version = object["metadata"]["resourceVersion"].as_str().map(str::to_owned);
            if kind != "BOOKMARK" {
                take(object, kind == "DELETED");
            }
        }
    }
}

/// Lists, when nothing is known yet, and opens the watch from there.
async fn open(
    client: &Client,
    fields: &str,
    version: &mut Option<String>,
    take: &mut impl FnMut(&Value, bool),
) -> Result<BoxStream<'static, std::io::Result<String>>> {
    let tasks = Request::new("/apis/nixl-transfer.io/v1alpha1/transfertasks");
    if version.is_none() {
        let list: Value = client.request(tasks.list(&ListParams::default().fields(fields))?).await?;
        list["items"].as_array().into_iter().flatten().for_each(|task| take(task, false));
        *version = list["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    }
    let from = version.as_deref().context("a list has a version")?;
    let parameters = WatchParams::default().fields(fields).timeout(SECONDS);
    let stream = client.request_stream(tasks.watch(&parameters, from)?).await?;
    Ok(Box::pin(stream).lines().boxed())
}
