//! `/metrics`, `/healthz` and `/readyz` over HTTP, and the record of when each watch was last alive that they rest on.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use kube::{Api, Client, api::ListParams};
use nixl_transfer_crds::TransferJob;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Watched {
    Jobs,
    Tasks,
    Agents,
    Nodes,
    Leases,
    Regions,
}

impl Watched {
    /// All of them.
    pub const ALL: [Watched; 6] =
        [Watched::Jobs, Watched::Tasks, Watched::Agents, Watched::Nodes, Watched::Leases, Watched::Regions];

    /// The kind, for logs.
    pub fn name(self) -> &'static str {
        match self {
            Watched::Jobs => "transferjobs",
            Watched::Tasks => "transfertasks",
            Watched::Agents => "transfernodes",
            Watched::Nodes => "nodes",
            Watched::Leases => "leases",
            Watched::Regions => "memoryregions",
        }
    }
}

/// Not ready when no watch was alive for this long.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Not healthy when a watch was dead for this long although the API server answers.
const HEALTHY_WITHIN: Duration = Duration::from_secs(300);
/// How long a direct read may take.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// When each watch was last alive: an event, a bookmark, a list, or a watch that the API server opened.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    alive: [AtomicU64; Watched::ALL.len()],
    listed: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        Self { started: Instant::now(), alive: Default::default(), listed: AtomicBool::new(false) }
    }
}

impl Health {
    /// Notes that the watch is alive.
    pub fn touch(&self, watch: Watched) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.alive[watch as usize].store(millis, Ordering::Relaxed);
    }

    /// Notes that everything has been listed once.
    pub fn set_listed(&self) {
        self.listed.store(true, Ordering::Relaxed);
    }

    fn silent_for(&self, watch: Watched) -> Duration {
        let at = Duration::from_millis(self.alive[watch as usize].load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(at)
    }

    /// Why the operator is not ready.
    pub fn unready(&self) -> Option<String> {
        if !self.listed.load(Ordering::Relaxed) {
            return Some("not everything has been listed yet".into());
        }
        let silent = Watched::ALL.map(|watch| self.silent_for(watch)).into_iter().min()?;
        (silent > READY_WITHIN).then(|| format!("no watch has been alive for {} s", silent.as_secs()))
    }

    /// The watch that has been silent for too long.
    pub fn dead_watch(&self) -> Option<(Watched, Duration)> {
        Watched::ALL
            .map(|watch| (watch, self.silent_for(watch)))
            .into_iter()
            .find(|(_, silent)| *silent > HEALTHY_WITHIN)
    }
}

struct Served {
    health: Arc<Health>,
    metrics: Metrics,
    client: Client,
}

/// Serves until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    metrics: Metrics,
    client: Client,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/readyz", get(ready))
        .route("/healthz", get(healthy))
        .with_state(Arc::new(Served { health, metrics, client }));
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

async fn show_metrics(State(served): State<Arc<Served>>) -> (StatusCode, String) {
    match served.metrics.render() {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn ready(State(served): State<Arc<Served>>) -> (StatusCode, String) {
    match served.health.unready() {
        None => (StatusCode::OK, "ok\n".into()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// A dead watch is only our fault when the API server answers otherwise: restarting us would not help it.
async fn healthy(State(served): State<Arc<Served>>) -> (StatusCode, String) {
    let Some((watch, silent)) = served.health.dead_watch() else { return (StatusCode::OK, "ok\n".into()) };
    let jobs: Api<TransferJob> = Api::all(served.client.clone());
    let limit = ListParams::default().limit(1);
    match tokio::time::timeout(READ_WITHIN, jobs.list(&limit)).await {
        Ok(Ok(_)) => {
            let why =
                format!("watch {watch:?} has been dead for {} s; the API server answers\n", silent.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, why)
        }
        Ok(Err(_)) | Err(_) => (StatusCode::OK, "ok: the API server does not answer\n".into()),
    }
}
