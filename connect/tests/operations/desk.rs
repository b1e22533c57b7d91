//! A process with one connector, and memory (M), operations (O) and operations that are about to start, by name:
//!
//! `memory M SIZES SEED` · `part M OTHER SIZE` (lent: the beginning of another's memory) ·
//! `touchy M OTHER SIZE` (as `part`, and the owner panics when it is dropped) · `compare M SEED` · `access M` ·
//! `register|deregister M` · `elsewhere M` (registers with another connector) · `forget M`
//!
//! `readable|writable O M` · `read|write O M METADATA` · `soon` before one of these four: nobody waits for its start ·
//! `start O` · `metadata O` · `status O` · `wait|release O MILLISECONDS` · `cancel O` · `results O SEED` · `expect O AGENT` ·
//! `peer O` · `take O M` · `drop O`
//!
//! `name` · `agent` · `statistics` · `regions` · `abandoned` · `leave` (drops the connector) · `close MILLISECONDS`

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use nixl_connect::{CheckedMetadata, Connector, Descriptor, Device, Library, RdmaMetadata};

use super::held::{Held, NotBegun, Pending, hold};
use super::memory;
use super::role::{Answer, after, library, mistake, obey};
use crate::Outcome;

struct Desk {
    library: Library,
    connector: Option<Connector>,
    memory: HashMap<String, Vec<Arc<Descriptor>>>,
    pending: HashMap<String, (Pending, String)>,
    operations: HashMap<String, Box<dyn Held>>,
}

pub fn run() -> Outcome {
    let library = library()?;
    let mut desk = Desk {
        connector: Some(Connector::start_named("desk", &library)?),
        library,
        memory: HashMap::new(),
        pending: HashMap::new(),
        operations: HashMap::new(),
    };
    obey(|words| desk.obey(words))
}

impl Desk {
    fn obey(&mut self, words: &[&str]) -> Answer {
        match *words {
            ["memory", name, sizes, seed] => {
                let made = memory::make(sizes, seed)?;
                self.memory.insert(name.to_owned(), made.into_iter().map(Arc::new).collect());
            }
            ["part", name, other, size] => {
                let part = part(self.shared(other)?, size, |owner| owner)?;
                self.memory.insert(name.to_owned(), vec![Arc::new(part)]);
            }
            ["touchy", name, other, size] => {
                let part = part(self.shared(other)?, size, Touchy)?;
                self.memory.insert(name.to_owned(), vec![Arc::new(part)]);
            }
            ["compare", name, seed] => return memory::compare(self.shared(name)?, seed),
            ["access", name] => return Ok(access(self.memory(name)?).to_owned()),
            ["register", name] => {
                let connector = self.connector()?.clone();
                for descriptor in self.exclusive(name)? {
                    descriptor?.register_with_connector(&connector)?;
                }
            }
            ["deregister", name] => {
                for descriptor in self.exclusive(name)? {
                    descriptor?.deregister_with_connector();
                }
            }
            ["elsewhere", name] => {
                let elsewhere = Connector::start_named("elsewhere", &self.library)?;
                for descriptor in self.exclusive(name)? {
                    descriptor?.register_with_connector(&elsewhere)?;
                }
            }
            ["forget", name] => drop(self.memory.remove(name)),
            ["soon", ref command @ ..] => {
                let pending = self.begin(command)?;
                self.pending.insert(command[1].to_owned(), pending);
            }
            ["readable" | "writable" | "read" | "write", name, ..] => {
                let (pending, memory) = self.begin(words)?;
                return self.start(name, pending, memory);
            }
            ["start", name] => {
                let (pending, memory) = self.pending.remove(name).ok_or_else(|| mistake(name))?;
                return self.start(name, pending, memory);
            }
            ["metadata", name] => {
                return self.operation(name)?.metadata().ok_or_else(|| mistake("it offers nothing"));
            }
            ["status", name] => return Ok(self.operation(name)?.status().to_string()),
            ["wait", name, milliseconds] => self.operation(name)?.wait(after(milliseconds)?)?,
            ["release", name, milliseconds] => self.operation(name)?.release(after(milliseconds)?)?,
            ["cancel", name] => self.operation(name)?.cancel()?,
            ["results", name, seed] => return self.operation(name)?.results(seed),
            ["expect", name, agent] => {
                self.operation(name)?.expect(CheckedMetadata::decode(agent, None)?)?;
            }
            ["peer", name] => return Ok(self.operation(name)?.peer().unwrap_or_else(|| "nobody".to_owned())),
            ["take", name, memory] => {
                let operation = self.operations.remove(name).ok_or_else(|| mistake(name))?;
                match operation.take() {
                    Ok(descriptors) => drop(self.memory.insert(memory.to_owned(), descriptors)),
                    Err(operation) => {
                        self.operations.insert(name.to_owned(), operation);
                        return Ok("kept".to_owned());
                    }
                }
            }
            ["drop", name] => {
                let operation = self.operations.remove(name).is_some();
                if !operation && self.pending.remove(name).is_none() {
                    return Err(mistake(name));
                }
            }
            ["name"] => return Ok(self.connector()?.agent().to_owned()),
            ["agent"] => return Ok(self.connector()?.agent_metadata()?),
            ["statistics"] => {
                let now = self.connector()?.statistics()?;
                return Ok(format!(
                    "endpoints={} regions={} in_flight={} foreign={}",
                    now.endpoints, now.regions, now.in_flight, now.foreign_notifications
                ));
            }
            ["regions"] => return Ok(self.connector()?.statistics()?.regions.to_string()),
            ["abandoned"] => return Ok(self.connector()?.statistics()?.abandoned_bytes.to_string()),
            ["leave"] => drop(self.connector.take()),
            ["close", milliseconds] => {
                let connector = self.connector.take().ok_or_else(|| mistake("no connector"))?;
                connector.close(after(milliseconds)?)?;
            }
            _ => return Err(mistake(format!("no such command: {words:?}"))),
        }
        Ok("ok".to_owned())
    }

    /// Begins an operation and gives a way to wait for its start, and the name of its memory.
    fn begin(&mut self, words: &[&str]) -> Answer<(Pending, String)> {
        let connector = self.connector()?.clone();
        let pending: Pending = match *words {
            ["readable", _, memory] => {
                let starting = connector.create_readable(self.shared(memory)?.to_vec());
                Box::new(|| Ok(hold(starting.blocking()?)))
            }
            ["writable", _, memory] => {
                let starting = connector.create_writable(self.own(memory)?);
                Box::new(|| Ok(hold(starting.blocking()?)))
            }
            ["read", _, memory, metadata] => {
                let remote = RdmaMetadata::parse(metadata)?;
                let starting = connector.begin_read(remote, self.own(memory)?);
                Box::new(|| Ok(hold(starting.blocking()?)))
            }
            ["write", _, memory, metadata] => {
                let remote = RdmaMetadata::parse(metadata)?;
                let starting = connector.begin_write(self.shared(memory)?.to_vec(), remote);
                Box::new(|| Ok(hold(starting.blocking()?)))
            }
            _ => return Err(mistake(format!("no such operation: {words:?}"))),
        };
        Ok((pending, words[2].to_owned()))
    }

    /// Memory of an operation that is refused comes back under its name.
    fn start(&mut self, name: &str, pending: Pending, memory: String) -> Answer {
        match pending() {
            Ok(operation) => {
                self.operations.insert(name.to_owned(), operation);
                Ok("ok".to_owned())
            }
            Err(NotBegun { error, memory: descriptors }) => {
                self.memory.insert(memory, descriptors);
                Err(error.into())
            }
        }
    }

    fn connector(&self) -> Answer<&Connector> {
        self.connector.as_ref().ok_or_else(|| mistake("no connector"))
    }

    fn operation(&self, name: &str) -> Answer<&dyn Held> {
        self.operations.get(name).map(|held| &**held).ok_or_else(|| mistake(name))
    }

    fn shared(&self, name: &str) -> Answer<&[Arc<Descriptor>]> {
        self.memory.get(name).map(Vec::as_slice).ok_or_else(|| mistake(name))
    }

    fn memory(&mut self, name: &str) -> Answer<&mut [Arc<Descriptor>]> {
        self.memory.get_mut(name).map(Vec::as_mut_slice).ok_or_else(|| mistake(name))
    }

    fn exclusive(&mut self, name: &str) -> Answer<impl Iterator<Item = Answer<&mut Descriptor>>> {
        let descriptors = self.memory(name)?.iter_mut();
        Ok(descriptors.map(|descriptor| Arc::get_mut(descriptor).ok_or_else(|| mistake("in use"))))
    }

    /// Memory that nobody else holds, out of the desk.
    fn own(&mut self, name: &str) -> Answer<Vec<Descriptor>> {
        let descriptors = self.memory.remove(name).ok_or_else(|| mistake(name))?;
        descriptors.into_iter().map(|one| Arc::try_unwrap(one).map_err(|_| mistake("in use"))).collect()
    }
}

/// Whether the bytes can be written: `held` by an operation, `in flight` after it, or `free`.
fn access(memory: &mut [Arc<Descriptor>]) -> &'static str {
    let mut free = true;
    for descriptor in memory {
        match Arc::get_mut(descriptor) {
            None => return "held",
            Some(descriptor) => free &= descriptor.bytes_mut().is_some(),
        }
    }
    if free { "free" } else { "in flight" }
}

/// An owner that panics when it is dropped.
struct Touchy(#[allow(dead_code)] Arc<Descriptor>);

impl Drop for Touchy {
    fn drop(&mut self) {
        panic!("dropped on {:?}", std::thread::current().name());
    }
}

/// Lends the beginning of another descriptor's memory, which it keeps by what `by` makes of it.
fn part<O: Any + Send + Sync>(
    other: &[Arc<Descriptor>],
    size: &str,
    by: impl FnOnce(Arc<Descriptor>) -> O,
) -> Answer<Descriptor> {
    let size: usize = size.parse().map_err(mistake)?;
    let owner =
        other.first().filter(|owner| owner.size() >= size as u64).ok_or_else(|| mistake("too long"))?;
    let start = owner.ptr() as *mut u8;
    // SAFETY: the owner keeps the memory where it is; the tests offer it to be read only, and write it nowhere else.
    #[allow(unsafe_code)] // lending memory is what is tested
    let lent = unsafe { Descriptor::from_raw_parts(Device::Cpu, start, size, by(Arc::clone(owner))) };
    Ok(lent?)
}
