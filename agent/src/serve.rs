//! `/metrics`, `/healthz` and `/readyz` over HTTP, and the record of the main loop's turns that `/healthz` rests on.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::{net::TcpListener, sync::watch};

use crate::{
    control::{fence::Fence, watch::WatchHealth, workers::NixlFacts},
    metrics::Metrics,
};

/// Not ready when no watch was alive for this long.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The main loop turns every 2 s at least; without a turn for this long it is stuck, and only a new start helps.
const TURN_WITHIN: Duration = Duration::from_secs(60);

/// When the main loop last turned.
#[derive(Debug)]
pub struct Heartbeat {
    started: Instant,
    turned: AtomicU64,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { started: Instant::now(), turned: AtomicU64::new(0) }
    }
}

impl Heartbeat {
    /// Notes a turn.
    pub fn beat(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.turned.store(millis, Ordering::Relaxed);
    }

    /// How long ago the last turn was.
    pub fn silence(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.turned.load(Ordering::Relaxed)))
    }
}

/// What the answers are made of.
#[derive(Clone, Debug)]
pub struct Served {
    /// Of the main loop.
    pub heartbeat: Arc<Heartbeat>,
    /// Of the watches of tasks.
    pub watches: Arc<WatchHealth>,
    /// Whether the agent may commit.
    pub fence: Fence,
    /// What workers found out about NIXL.
    pub nixl: watch::Receiver<Option<NixlFacts>>,
    /// What is shown.
    pub metrics: Metrics,
}

impl Served {
    /// Why the agent takes no transfers now.
    fn unready(&self) -> Option<String> {
        match self.watches.silence() {
            None => return Some("the tasks of this node have not been listed yet".into()),
            Some(silent) if silent > READY_WITHIN => {
                return Some(format!("a watch has not been alive for {} s", silent.as_secs()));
            }
            Some(_) => {}
        }
        if !self.fence.may_commit() {
            return Some("the Lease has not been renewed".into());
        }
        match &*self.nixl.borrow() {
            None => Some("no worker has loaded NIXL yet".into()),
            Some(NixlFacts::Unusable(message)) => Some(format!("NIXL cannot be used: {message}")),
            Some(NixlFacts::Usable { .. }) => None,
        }
    }
}

/// Serves until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    served: Served,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/readyz", get(ready))
        .route("/healthz", get(healthy))
        .with_state(served);
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

async fn show_metrics(State(served): State<Served>) -> (StatusCode, String) {
    match served.metrics.render() {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn ready(State(served): State<Served>) -> (StatusCode, String) {
    match served.unready() {
        None => (StatusCode::OK, "ok\n".into()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn healthy(State(served): State<Served>) -> (StatusCode, String) {
    let silence = served.heartbeat.silence();
    if silence > TURN_WITHIN {
        let why = format!("the main loop has not turned for {} s\n", silence.as_secs());
        return (StatusCode::SERVICE_UNAVAILABLE, why);
    }
    (StatusCode::OK, "ok\n".into())
}
