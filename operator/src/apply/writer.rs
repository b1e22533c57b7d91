//! Every request that changes something passes here: bounded in number and time, counted, and, for the tests of crashes
//! between two writes, the one after which the process ends.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use kube::Client;
use tokio::sync::Semaphore;

use crate::metrics::Metrics;

/// How long the API server may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The way to the API server.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    permits: Arc<Semaphore>,
    metrics: Metrics,
    written: Arc<AtomicU64>,
    exit_after: Option<u64>,
}

impl Writer {
    /// A writer with so many requests under way at once. With `exit_after` the process kills itself right after so
    /// many writes have succeeded.
    pub fn new(client: Client, writers: usize, metrics: Metrics, exit_after: Option<u64>) -> Self {
        let permits = Arc::new(Semaphore::new(writers.max(1)));
        Self { client, permits, metrics, written: Arc::default(), exit_after }
    }

    /// The client, to build requests with.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Sends a request that changes something.
    pub async fn write<T>(
        &self,
        kind: &str,
        verb: &str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, kube::Error> {
        let begun = Instant::now();
        let answer = self.read(request).await?;
        self.metrics.write_seconds.observe(begun.elapsed().as_secs_f64());
        self.metrics.writes.with_label_values(&[kind, verb]).inc();
        let written = self.written.fetch_add(1, Ordering::SeqCst) + 1;
        if Some(written) == self.exit_after {
            tracing::warn!(written, "ending at once, as --exit-after-writes asks");
            die();
        }
        Ok(answer)
    }

    /// Sends a request that changes nothing.
    pub async fn read<T>(
        &self,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, kube::Error> {
        // The semaphore is never closed; were it, going without a permit would do no harm.
        let _permit = self.permits.acquire().await;
        match tokio::time::timeout(ANSWER_WITHIN, request).await {
            Ok(answer) => answer,
            Err(_) => Err(kube::Error::Service("the API server did not answer within 30 s".into())),
        }
    }
}

/// Ends the process as a crash would: nothing is flushed, no destructor runs.
fn die() -> ! {
    // The signal cannot be caught; what follows is for a kernel that refuses it.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}
