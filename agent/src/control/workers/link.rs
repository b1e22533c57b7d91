//! One worker's socket: a thread that hears it and, with the writer, two. Heartbeats end here. The worker is not trusted:
//! what breaks the protocol ends the connection.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{NixlFacts, Order, WorkerEvent};
use crate::{
    control::connection::{Outgoing, Writer},
    protocol::{
        FromWorker, ToWorker, WorkerName,
        channel::{Channel, ChannelError},
    },
    region::device::check_descriptor,
};

/// Messages that wait for a hop; a hop that does not read holds up its worker, not the agent's memory.
const EVENTS: usize = 32;

/// When the worker was last heard, by our monotonic clock.
#[derive(Debug)]
pub(super) struct Heard {
    started: Instant,
    at: AtomicU64,
    delivering: AtomicBool,
}

impl Heard {
    fn new() -> Self {
        Self { started: Instant::now(), at: AtomicU64::new(0), delivering: AtomicBool::new(false) }
    }

    /// It is alive now, or we were not listening until now.
    pub(super) fn touch(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.at.store(millis, Ordering::Relaxed);
    }

    /// How long it has been silent, and whether that is because its owner does not take what it said.
    pub(super) fn silence(&self) -> (Duration, bool) {
        let at = Duration::from_millis(self.at.load(Ordering::Relaxed));
        (self.started.elapsed().saturating_sub(at), self.delivering.load(Ordering::Relaxed))
    }
}

/// Control's end of a worker.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) queue: mpsc::Sender<Outgoing<ToWorker>>,
    pub(super) heard: Arc<Heard>,
    /// What its owner will read.
    pub(super) events: mpsc::Receiver<WorkerEvent>,
    /// To be told how the process ended, once that is proven; `Gone` comes after that and the end of the socket.
    pub(super) proof: oneshot::Sender<String>,
    pub(super) socket: Channel,
    pub(super) threads: [JoinHandle<()>; 2],
}

impl Link {
    /// Starts the threads on our end of the socket.
    pub(super) fn start(
        name: &WorkerName,
        socket: Channel,
        orders: mpsc::UnboundedSender<Order>,
    ) -> Result<Self, ChannelError> {
        let writer = Writer::start(&name.0, socket.try_clone()?)?;
        let (tell, events) = mpsc::channel(EVENTS);
        let (proof, proven) = oneshot::channel();
        let heard = Arc::new(Heard::new());
        let reader = Reader {
            name: name.clone(),
            socket: socket.try_clone()?,
            heard: heard.clone(),
            events: tell,
            orders,
            loaded: false,
        };
        let thread = std::thread::Builder::new().name("reader".into()).spawn(move || reader.run(proven))?;
        Ok(Self { queue: writer.queue, heard, events, proof, socket, threads: [writer.thread, thread] })
    }
}

struct Reader {
    name: WorkerName,
    socket: Channel,
    heard: Arc<Heard>,
    events: mpsc::Sender<WorkerEvent>,
    orders: mpsc::UnboundedSender<Order>,
    loaded: bool,
}

impl Reader {
    fn run(mut self, proven: oneshot::Receiver<String>) {
        let fault = loop {
            match self.socket.receive::<FromWorker>() {
                Ok((message, descriptors)) => {
                    if let Err(fault) = self.take(message, descriptors) {
                        break Some(fault);
                    }
                }
                Err(ChannelError::Closed) => break None,
                Err(error) => break Some(format!("it broke the protocol: {error}")),
            }
        };
        let broken = fault.is_some();
        // The pool is gone only when the agent ends.
        let _ = self.orders.send(Order::Closed(self.name.clone(), fault));
        if broken {
            self.drain();
        }
        // No deadline: without the proof nothing may be said. The pool gives it, or is gone.
        if let Ok(status) = proven.blocking_recv() {
            let _ = self.events.blocking_send(WorkerEvent::Gone { status });
        }
    }

    /// The end of the socket is part of the proof: all its memory is gone when its descriptors are.
    fn drain(&self) {
        while !matches!(
            self.socket.receive::<serde_json::Value>(),
            Err(ChannelError::Closed | ChannelError::Io(_))
        ) {}
    }

    fn take(&mut self, message: FromWorker, mut descriptors: Vec<OwnedFd>) -> Result<(), String> {
        let memory = match (&message, descriptors.len()) {
            // Another one could hang when it is closed; here that is this worker's thread.
            (FromWorker::Allocated, 1) => descriptors.pop().map(check_descriptor).transpose()?,
            (FromWorker::Allocated, _) => return Err("it said Allocated without one descriptor".into()),
            (_, 0) => None,
            _ => return Err("it sent descriptors".into()),
        };
        match message {
            FromWorker::Pong { .. } => self.heard.touch(),
            FromWorker::Ready { nixl_version, backends, memlock } => {
                self.loaded(NixlFacts::Usable { version: nixl_version, backends, memlock })?;
            }
            FromWorker::NotReady { message } if self.loaded => {
                let fault = format!("NIXL did not take the network: {message}");
                let _ = self.events.blocking_send(WorkerEvent::Message(FromWorker::NotReady { message }));
                return Err(fault);
            }
            FromWorker::NotReady { message } => self.loaded(NixlFacts::Unusable(message))?,
            other if !self.loaded => return Err(format!("it said {} before it was ready", kind(&other))),
            other => {
                let event = match memory {
                    Some(memory) => WorkerEvent::Allocated { memory },
                    None => WorkerEvent::Message(other),
                };
                self.heard.delivering.store(true, Ordering::Relaxed);
                // An owner that has let go has asked for the worker's end.
                let _ = self.events.blocking_send(event);
                self.heard.touch();
                self.heard.delivering.store(false, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn loaded(&mut self, facts: NixlFacts) -> Result<(), String> {
        if std::mem::replace(&mut self.loaded, true) {
            return Err("it said twice that it is ready".into());
        }
        self.heard.touch();
        let _ = self.orders.send(Order::Loaded(self.name.clone(), facts));
        Ok(())
    }
}

/// The kind of a message, without what it carries: metadata is never logged.
fn kind(message: &FromWorker) -> &'static str {
    match message {
        FromWorker::Pong { .. } => "Pong",
        FromWorker::Ready { .. } => "Ready",
        FromWorker::NotReady { .. } => "NotReady",
        FromWorker::Prepared { .. } => "Prepared",
        FromWorker::Uses { .. } => "Uses",
        FromWorker::Progress { .. } => "Progress",
        FromWorker::Consumed { .. } => "Consumed",
        FromWorker::Manifest { .. } => "Manifest",
        FromWorker::Durable { .. } => "Durable",
        FromWorker::Stored { .. } => "Stored",
        FromWorker::Received { .. } => "Received",
        FromWorker::Sent { .. } => "Sent",
        FromWorker::Allocated => "Allocated",
        FromWorker::Looked => "Looked",
        FromWorker::Refused { .. } => "Refused",
        FromWorker::Completed { .. } => "Completed",
        FromWorker::Failed { .. } => "Failed",
    }
}
