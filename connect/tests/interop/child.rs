//! Our side with several operations at once: connectors and operations by name, one command a line, one line of JSON after
//! `@@` as the answer. Ends with its input.
//!
//! `connector C` · `close C` · `readable|writable O C SIZES` (gives the metadata) · `share O C OTHER` (a Readable on
//! OTHER's memory) · `read|write O C SIZES|- METADATA` · `expect O METADATA` (its agent) · `status O` · `wait O MILLISECONDS` ·
//! `drop O` · `statistics C`; the rest is of `remote_desk.rs`

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use nixl_connect::{
    Connector, Descriptor, Library, OperationError, PassiveOperation, RdmaMetadata, exit_now,
};
use serde_json::{Value, json};

use super::held::{Answer, Failure, Held, after, lengths, mistake, source, target};
use super::remote_desk::Remotes;

struct Desk {
    library: Library,
    connectors: HashMap<String, Connector>,
    operations: HashMap<String, Box<dyn Held>>,
    /// The memory of Readables, which several operations may offer.
    sources: HashMap<String, Vec<Arc<Descriptor>>>,
    remotes: Remotes,
}

pub fn run() {
    let outcome = desk().and_then(|mut desk| {
        for line in std::io::stdin().lines() {
            let line = line.map_err(mistake)?;
            let answer = desk
                .obey(&line)
                .unwrap_or_else(|Failure(error, message)| json!({"error": error, "message": message}));
            say(&answer);
        }
        Ok(())
    });
    if let Err(Failure(error, message)) = &outcome {
        say(&json!({"error": error, "message": message}));
    }
    exit_now(i32::from(outcome.is_err()))
}

fn say(answer: &Value) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "@@{answer}").and_then(|()| out.flush()).is_err() {
        exit_now(3);
    }
}

fn desk() -> Answer<Desk> {
    let path = |name: &str| std::env::var_os(name).ok_or_else(|| mistake(format!("no {name}")));
    let (library, plugins) = (path("NIXL_TRANSFER_NIXL_LIBRARY")?, path("NIXL_PLUGIN_DIR")?);
    let library = Library::load(Path::new(&library), Path::new(&plugins)).map_err(mistake)?;
    let (connectors, operations, sources) = (HashMap::new(), HashMap::new(), HashMap::new());
    Ok(Desk { library, connectors, operations, sources, remotes: Remotes::default() })
}

impl Desk {
    fn obey(&mut self, line: &str) -> Answer<Value> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["connector", name] => {
                let connector = Connector::start_named(name, &self.library).map_err(mistake)?;
                let agent = connector.agent().to_owned();
                self.connectors.insert(name.to_owned(), connector);
                Ok(json!({"agent": agent}))
            }
            ["close", name] => {
                let connector = self.connectors.remove(name).ok_or_else(|| mistake(name))?;
                connector.close(after("5000")?).map_err(mistake)?;
                Ok(json!({}))
            }
            ["readable", operation, connector, sizes] => {
                let memory = source(&lengths(sizes, None)?)?.into_iter().map(Arc::new).collect();
                self.readable(operation, connector, memory)
            }
            ["share", operation, connector, other] => {
                let memory = self.sources.get(other).cloned().ok_or_else(|| mistake(other))?;
                self.readable(operation, connector, memory)
            }
            ["writable", operation, connector, sizes] => {
                let writable = self.connector(connector)?.create_writable(target(&lengths(sizes, None)?)?);
                self.offer(operation, writable.blocking().map_err(OperationError::from)?)
            }
            ["read", operation, connector, sizes, metadata] => {
                let remote = RdmaMetadata::parse(metadata)?;
                let local = target(&lengths(sizes, Some(&remote))?)?;
                let read = self.connector(connector)?.begin_read(remote, local);
                self.hold(operation, read.blocking().map_err(OperationError::from)?)
            }
            ["write", operation, connector, sizes, metadata] => {
                let remote = RdmaMetadata::parse(metadata)?;
                let local = source(&lengths(sizes, Some(&remote))?)?;
                let write = self.connector(connector)?.begin_write(local, remote);
                self.hold(operation, write.blocking().map_err(OperationError::from)?)
            }
            ["expect", operation, metadata] => {
                let sender = RdmaMetadata::parse(metadata)?.agent().clone();
                self.operation(operation)?.expect(sender).map(|()| json!({}))
            }
            ["status", operation] => Ok(json!({"status": self.operation(operation)?.status().to_string()})),
            ["wait", operation, milliseconds] => {
                let operation = self.operation(operation)?;
                operation.wait(after(milliseconds)?)?;
                Ok(json!({"status": operation.status().to_string(), "sha256": operation.sha256()?}))
            }
            ["drop", operation] => {
                self.sources.remove(operation);
                self.operations.remove(operation).map(|_| json!({})).ok_or_else(|| mistake(operation))
            }
            ["statistics", connector] => {
                let statistics = self.connector(connector)?.statistics().map_err(mistake)?;
                Ok(json!({
                    "foreign": statistics.foreign_notifications,
                    "endpoints": statistics.endpoints,
                    "abandoned": statistics.abandoned_bytes,
                    "in_flight": statistics.in_flight,
                }))
            }
            _ => self.remotes.obey(&self.library, &words),
        }
    }

    fn readable(&mut self, operation: &str, connector: &str, memory: Vec<Arc<Descriptor>>) -> Answer<Value> {
        let readable = self.connector(connector)?.create_readable(memory.clone());
        let readable = readable.blocking().map_err(OperationError::from)?;
        self.sources.insert(operation.to_owned(), memory);
        self.offer(operation, readable)
    }

    fn offer<D>(&mut self, name: &str, operation: PassiveOperation<D>) -> Answer<Value>
    where
        D: AsRef<Descriptor> + Unpin + 'static,
    {
        // As text and back, in the exact form of the wire: the order of a `Value` is another.
        let metadata = json!({"metadata": operation.metadata().to_json()});
        self.operations.insert(name.to_owned(), Box::new(operation));
        Ok(metadata)
    }

    fn hold(&mut self, name: &str, operation: impl Held + 'static) -> Answer<Value> {
        self.operations.insert(name.to_owned(), Box::new(operation));
        Ok(json!({}))
    }

    fn connector(&self, name: &str) -> Answer<&Connector> {
        self.connectors.get(name).ok_or_else(|| mistake(name))
    }

    fn operation(&self, name: &str) -> Answer<&dyn Held> {
        self.operations.get(name).map(|held| &**held).ok_or_else(|| mistake(name))
    }
}
