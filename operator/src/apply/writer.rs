//! Every request that changes something passes here: only while this operator leads, bounded in number and time, counted,
//! and, for the tests of crashes between two writes, the one after which the process ends.

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

use crate::{leader::fence::Fence, metrics::Metrics};

/// How long the API server may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The way to the API server.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    permits: Arc<Semaphore>,
    fence: Fence,
    metrics: Metrics,
    written: Arc<AtomicU64>,
    exit_after: Option<u64>,
}

impl Writer {
    /// A writer with so many requests under way at once, as long as the fence lets it. With `exit_after` the process kills
    /// itself right after so many writes have succeeded.
    pub fn new(
        client: Client,
        writers: usize,
        fence: Fence,
        metrics: Metrics,
        exit_after: Option<u64>,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(writers.max(1)));
        Self { client, permits, fence, metrics, written: Arc::default(), exit_after }
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
        let fenced = async {
            // When its turn has come, and not before: it may have waited for longer than the Lease lasts.
            if !self.fence.may_write() {
                return Err(kube::Error::Service(
                    "this operator does not lead any more and writes nothing".into(),
                ));
            }
            request.await
        };
        let answer = self.read(fenced).await?;
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::leader::Moment;

    #[tokio::test]
    async fn nothing_is_sent_before_the_fence_opens_nor_after_it_is_shut() {
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let (fence, metrics) = (Fence::closed(Duration::from_secs(10)), Metrics::new().unwrap());
        let writer = Writer::new(client, 1, fence.clone(), metrics, None);
        let sent = AtomicBool::new(false);
        let write = || {
            writer.write("TransferTask", "create", async {
                sent.store(true, Ordering::Relaxed);
                Ok(())
            })
        };
        assert!(write().await.is_err() && !sent.load(Ordering::Relaxed));
        fence.renewed(Moment::now());
        assert!(write().await.is_ok() && sent.swap(false, Ordering::Relaxed));
        fence.shut();
        assert!(write().await.is_err() && !sent.load(Ordering::Relaxed));
    }
}
