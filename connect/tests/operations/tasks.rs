//! Operations in tasks of tokio: every start and every wait is a task of its own, so all of it can move between threads.
//!
//! `readable|writable` (gives the metadata) · `read|write METADATA`: begins, awaits the start, and holds the operation ·
//! `select KIND [METADATA]` (begins, and drops what starts because another branch is ready) · `wait MILLISECONDS` ·
//! `twice MILLISECONDS` (two tasks) · `abort` (a task that waits) · `status` · `compare` · `drop` · `statistics`

use std::sync::Arc;
use std::time::Instant;

use nixl_connect::{
    Connector, OperationError, RdmaMetadata, ReadOperation, ReadableOperation, Refused, WritableOperation,
    WriteOperation,
};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::memory;
use super::role::{Answer, Failure, after, library, mistake, obey};
use crate::Outcome;

pub const SIZES: &str = "100000,1";

enum Operation {
    Readable(ReadableOperation),
    Writable(WritableOperation),
    Read(ReadOperation),
    Write(WriteOperation),
}

impl Operation {
    async fn wait(&self, deadline: Instant) -> Result<(), OperationError> {
        match self {
            Self::Readable(readable) => readable.wait_for_completion(deadline).await,
            Self::Writable(writable) => writable.wait_for_completion(deadline).await,
            Self::Read(read) => read.wait_for_completion(deadline).await,
            Self::Write(write) => write.wait_for_completion(deadline).await,
        }
    }

    fn status(&self) -> String {
        match self {
            Self::Readable(readable) => readable.status().to_string(),
            Self::Writable(writable) => writable.status().to_string(),
            Self::Read(read) => read.status().to_string(),
            Self::Write(write) => write.status().to_string(),
        }
    }

    fn compare(&self) -> Answer {
        match self {
            Self::Readable(readable) => memory::compare(readable.results()?, "1"),
            Self::Writable(writable) => memory::compare(writable.results()?, "1"),
            Self::Read(read) => memory::compare(read.results()?, "1"),
            Self::Write(write) => memory::compare(write.results()?, "1"),
        }
    }
}

struct Tasks {
    connector: Connector,
    runtime: Runtime,
    operation: Option<Arc<Operation>>,
}

/// On one thread, or on several.
pub fn run(several: bool) -> Outcome {
    let mut builder = if several { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    let runtime = builder.enable_time().build()?;
    let connector = Connector::start_named("tasks", &library()?)?;
    let mut tasks = Tasks { connector, runtime, operation: None };
    obey(|words| tasks.obey(words))
}

impl Tasks {
    fn obey(&mut self, words: &[&str]) -> Answer {
        match *words {
            ["readable"] => {
                let operation = self.start(self.connector.create_readable(memory::make(SIZES, "1")?))?;
                let metadata = operation.metadata().to_json();
                self.operation = Some(Arc::new(Operation::Readable(operation)));
                return Ok(metadata);
            }
            ["writable"] => {
                let operation = self.start(self.connector.create_writable(memory::make(SIZES, "0")?))?;
                let metadata = operation.metadata().to_json();
                self.operation = Some(Arc::new(Operation::Writable(operation)));
                return Ok(metadata);
            }
            ["read", metadata] => {
                let remote = RdmaMetadata::parse(metadata)?;
                let operation = self.start(self.connector.begin_read(remote, memory::make(SIZES, "0")?))?;
                self.operation = Some(Arc::new(Operation::Read(operation)));
            }
            ["write", metadata] => {
                let remote = RdmaMetadata::parse(metadata)?;
                let operation = self.start(self.connector.begin_write(memory::make(SIZES, "1")?, remote))?;
                self.operation = Some(Arc::new(Operation::Write(operation)));
            }
            ["select", "readable"] => {
                return self.select(self.connector.create_readable(memory::make(SIZES, "1")?));
            }
            ["select", "read", metadata] => {
                let remote = RdmaMetadata::parse(metadata)?;
                return self.select(self.connector.begin_read(remote, memory::make(SIZES, "0")?));
            }
            ["wait", milliseconds] => {
                let wait = self.waiting(milliseconds)?;
                self.runtime.block_on(wait).map_err(mistake)??;
            }
            ["twice", milliseconds] => {
                let (first, second) = (self.waiting(milliseconds)?, self.waiting(milliseconds)?);
                self.runtime.block_on(async {
                    first.await.map_err(mistake)??;
                    second.await.map_err(mistake)??;
                    Ok::<_, Failure>(())
                })?;
            }
            ["abort"] => {
                let wait = self.waiting("60000")?;
                return self.runtime.block_on(async {
                    // On one thread the task now has its first turn, and waits.
                    tokio::task::yield_now().await;
                    wait.abort();
                    match wait.await {
                        Err(error) if error.is_cancelled() => Ok("aborted".to_owned()),
                        other => Err(mistake(format!("{other:?}"))),
                    }
                });
            }
            ["status"] => return Ok(self.operation()?.status()),
            ["compare"] => return self.operation()?.compare(),
            ["drop"] => drop(self.operation.take()),
            ["statistics"] => {
                let now = self.connector.statistics()?;
                return Ok(format!(
                    "endpoints={} regions={} in_flight={}",
                    now.endpoints, now.regions, now.in_flight
                ));
            }
            _ => return Err(mistake(format!("no such command: {words:?}"))),
        }
        Ok("ok".to_owned())
    }

    fn operation(&self) -> Answer<&Arc<Operation>> {
        self.operation.as_ref().ok_or_else(|| mistake("no operation"))
    }

    /// Awaits the start in a task.
    fn start<O: Send + 'static, D: Send + 'static>(
        &self,
        starting: impl Future<Output = Result<O, Refused<D>>> + Send + 'static,
    ) -> Answer<O> {
        let started = self.runtime.block_on(self.runtime.spawn(starting));
        started.map_err(mistake)?.map_err(|refused| refused.error.into())
    }

    /// The branch that is ready comes second, so the start has been polled once when it is dropped.
    fn select<O: Send + 'static>(&self, starting: impl Future<Output = O> + Send + 'static) -> Answer {
        let selected = self.runtime.spawn(async {
            tokio::select! {
                biased;
                started = starting => drop(started),
                () = std::future::ready(()) => {}
            }
        });
        self.runtime.block_on(selected).map_err(mistake)?;
        Ok("ok".to_owned())
    }

    /// A task that waits for the operation.
    fn waiting(&self, milliseconds: &str) -> Answer<JoinHandle<Result<(), OperationError>>> {
        let (operation, deadline) = (Arc::clone(self.operation()?), after(milliseconds)?);
        Ok(self.runtime.spawn(async move { operation.wait(deadline).await }))
    }
}
