//! The worker process: NIXL, staging memory, and nothing worth stealing. Its main thread hears control, answers
//! heartbeats and starts one thread for each hop; it opens no file by name. It always ends with `_exit`.

mod content;
mod device;
mod digests;
mod external;
mod failures;
mod hop;
mod nixl;
mod outbox;
mod pieces;
mod placement;
mod progress;
mod relay;
mod signs;
mod source;
mod target;
mod trouble;
mod ucx;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nixl_transfer_crds::Reason;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::protocol::channel::{Channel, ChannelError};
use crate::protocol::{DeviceMemory, Failure, FromWorker, HopId, StreamOptions, ToWorker};
use hop::{Hop, HopCommand, Partial, Peer, ToPrepare};
use nixl::Nixl;
use outbox::Outbox;
use target::TargetPlan;

/// A worker whose control has said nothing for so long is alone, and ends.
pub const HEARTBEAT: Duration = Duration::from_secs(20);
/// Control takes a message within this time; it may be busy with files for as long as the pool lets it.
const SEND: Duration = Duration::from_secs(320);

/// Why a worker ends.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// Control closed the socket: it is gone, or wants this worker to go.
    Closed,
    /// No heartbeat.
    Silent,
    /// A target's hop is over and committed.
    Finished,
    /// NIXL cannot be used; control was told.
    NotReady,
    /// Control sent what no control sends.
    Broken(String),
}

/// Serves control over its socket until the end of the process.
pub fn run(socket: OwnedFd) -> ! {
    // A thread that panics would leave its hop silent; without the worker control knows at once.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        nixl_connect::exit_now(101);
    }));
    raise_open_files();
    let ending = serve(&Channel::new(UnixStream::from(socket)), HEARTBEAT);
    tracing::debug!(?ending, "worker ends");
    let code = match ending {
        Ending::Closed | Ending::Finished => 0,
        Ending::NotReady => 1,
        Ending::Broken(why) => {
            tracing::error!(why, "control broke the protocol");
            2
        }
        Ending::Silent => {
            tracing::error!("no heartbeat from control; the worker ends");
            3
        }
    };
    nixl_connect::exit_now(code)
}

/// Several hops with their windows of open files need more than the usual soft limit of 1,024.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit of open files stays at {:?}", limit.current);
    }
}

fn serve(channel: &Channel, heartbeat: Duration) -> Ending {
    let prepared = channel.set_timeouts(Some(SEND), Some(heartbeat)).and_then(|()| channel.try_clone());
    let outbox = match prepared {
        Ok(writing) => Outbox::new(writing),
        Err(error) => return Ending::Broken(error.to_string()),
    };
    let mut worker =
        Worker { outbox, nixl: None, hops: HashMap::new(), corrupt_chunk: None, cuda: "".into() };
    let mut heard = Instant::now();
    loop {
        // Sleeps in the kernel: a warm worker costs nothing.
        let (message, descriptors) = match channel.receive::<ToWorker>() {
            Ok(received) => received,
            Err(ChannelError::Closed) => return Ending::Closed,
            Err(ChannelError::TimedOut) => return Ending::Silent,
            Err(error) => return Ending::Broken(error.to_string()),
        };
        if matches!(message, ToWorker::Ping { .. }) {
            heard = Instant::now();
        } else if heard.elapsed() > heartbeat {
            return Ending::Silent;
        }
        if let Err(ending) = worker.take(message, descriptors) {
            return ending;
        }
    }
}

struct Worker {
    outbox: Outbox,
    nixl: Option<Nixl>,
    hops: HashMap<HopId, Hop>,
    corrupt_chunk: Option<u64>,
    /// NVIDIA's driver, by name or path.
    cuda: Arc<str>,
}

impl Worker {
    fn take(&mut self, message: ToWorker, descriptors: Vec<OwnedFd>) -> Result<(), Ending> {
        match message {
            ToWorker::Ping { sequence } => self.outbox.send(&FromWorker::Pong { sequence }),
            ToWorker::Load { worker, library, plugins, cuda, corrupt_chunk } => {
                if self.nixl.is_some() {
                    return Err(Ending::Broken("Load came twice".into()));
                }
                (self.corrupt_chunk, self.cuda) = (corrupt_chunk, cuda.into());
                let (nixl, facts) =
                    Nixl::load(&worker, &library, &plugins).map_err(|why| self.not_ready(why))?;
                self.nixl = Some(nixl);
                self.outbox.send(&facts);
            }
            ToWorker::Assign { network } => {
                let nixl = self.nixl.as_mut().ok_or_else(|| Ending::Broken("Assign before Load".into()))?;
                nixl.assign(&network).map_err(|why| self.not_ready(why))?;
            }
            ToWorker::OpenSource { hop, stream } => {
                let corrupt = self.corrupt_chunk;
                self.open(hop, stream, move |seat| source::run(seat, corrupt));
            }
            ToWorker::OpenTarget { hop, stream, read_back, key, forward } => {
                let onward = forward.map(|relay| {
                    let (onward, comes) = relay::pair();
                    self.open(relay, stream, move |seat| relay::run(seat, &comes));
                    onward
                });
                let plan = TargetPlan { key, read_back, onward };
                self.open(hop, stream, move |seat| target::run(seat, plan));
            }
            ToWorker::Connect { hop, metadata, worker } => {
                self.tell(hop, HopCommand::Connect(Peer { metadata, worker, patience: None }));
            }
            ToWorker::ConnectRelay { hop, metadata, worker, progress_seconds } => {
                let patience = Some(Duration::from_secs(progress_seconds.max(1)));
                self.tell(hop, HopCommand::Connect(Peer { metadata, worker, patience }));
            }
            ToWorker::Manifest { hop, entries, totals } => {
                self.tell(hop, HopCommand::Manifest { entries, totals })
            }
            ToWorker::Files { hop, files } => {
                if files.len() != descriptors.len() {
                    return Err(Ending::Broken("Files and its descriptors differ in number".into()));
                }
                self.tell(hop, HopCommand::Files(files.into_iter().zip(descriptors).collect()));
            }
            ToWorker::Partials { hop, files } => {
                let partials = Partial::list(files, descriptors)
                    .ok_or_else(|| Ending::Broken("Partials and its descriptors differ in number".into()))?;
                if let Some(hop) = self.hops.get(&hop) {
                    hop.prepare(ToPrepare::Files(partials));
                }
            }
            ToWorker::FromExternal { hop, metadata, expected } => {
                self.tell(hop, HopCommand::External { metadata, expected });
            }
            ToWorker::IntoExternal { hop, metadata } => {
                if let Some(hop) = self.hops.get(&hop) {
                    hop.prepare(ToPrepare::External(metadata));
                }
            }
            ToWorker::FromDevice { hop, memory } => {
                let (named, library) = (named(memory, descriptors)?, Arc::clone(&self.cuda));
                self.tell(hop, HopCommand::Device { named, library });
            }
            ToWorker::IntoDevice { hop, memory } => {
                let (named, library) = (named(memory, descriptors)?, Arc::clone(&self.cuda));
                if let Some(hop) = self.hops.get(&hop) {
                    hop.prepare(ToPrepare::Device { named, library });
                }
            }
            // A driver that hangs here keeps heartbeats unanswered, and control ends the worker.
            ToWorker::Allocate { gpu, bytes } => match device::allocate(&self.cuda, &gpu, bytes) {
                Ok(memory) => self.outbox.send_with(&FromWorker::Allocated, memory.as_fd()),
                Err(failure) => self.outbox.send(&FromWorker::Refused { failure }),
            },
            ToWorker::Look { memory } => {
                let looked = device::look(&self.cuda, &named(memory, descriptors)?);
                self.outbox.send(&match looked {
                    Ok(()) => FromWorker::Looked,
                    Err(failure) => FromWorker::Refused { failure },
                });
            }
            ToWorker::Complete { hop } => self.tell(hop, HopCommand::Complete),
            ToWorker::Finished { hop } => {
                tracing::debug!(hop = hop.0, "the hop is committed");
                return Err(Ending::Finished);
            }
            ToWorker::Close { hop } => {
                if let Some(hop) = self.hops.remove(&hop) {
                    hop.close();
                }
            }
        }
        Ok(())
    }

    fn not_ready(&self, message: String) -> Ending {
        self.outbox.send(&FromWorker::NotReady { message });
        Ending::NotReady
    }

    fn open(
        &mut self,
        id: HopId,
        options: StreamOptions,
        body: impl FnOnce(hop::Seat) -> Result<(), hop::Stop> + Send + 'static,
    ) {
        let Some(agent) = self.nixl.as_ref().and_then(Nixl::assigned) else {
            let failure = Failure::new(Reason::BackendUnavailable, "the worker has no NIXL backend yet");
            return self.outbox.send(&FromWorker::Failed { hop: id, failure });
        };
        match Hop::start(id, options, Arc::clone(agent), self.outbox.clone(), body) {
            Ok(hop) => drop(self.hops.insert(id, hop)),
            Err(error) => {
                let failure = Failure::new(Reason::WorkerLost, format!("no thread for the hop: {error}"));
                self.outbox.send(&FromWorker::Failed { hop: id, failure });
            }
        }
    }

    /// A hop that has failed hears nothing more; control may not know of it yet.
    fn tell(&self, hop: HopId, command: HopCommand) {
        if let Some(hop) = self.hops.get(&hop) {
            hop.tell(command);
        }
    }
}

/// Memory of a GPU with what must come beside it.
fn named(memory: DeviceMemory, descriptors: Vec<OwnedFd>) -> Result<device::Named, Ending> {
    device::Named::new(memory, descriptors)
        .ok_or_else(|| Ending::Broken("GPU memory and its descriptors do not fit".into()))
}

#[cfg(test)]
mod tests;
