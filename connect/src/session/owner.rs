//! The session's thread: owns the NIXL agent and is the only one that calls it. Takes commands, polls notifications and
//! transfers, tells endpoints. Its end with transfers in flight or stuck leaks the agent on purpose: NIXL cannot cancel.

mod attaching;
mod backend;
mod operations;
mod polling;

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nixl_sys::{Agent, AgentConfig, Backend, NotificationMap, ThreadSync};

use super::command::{Begin, Census, Command, Reply};
use super::endpoint::EndpointId;
use super::endpoints::Endpoints;
use super::pacing::{Pacing, Rest};
use super::peers::Peers;
use super::regions::Regions;
use super::transfers::Transfers;
use super::{BACKEND, Counters, SessionError};

/// How often endpoints are told that time passes.
const TICK: Duration = Duration::from_secs(1);

/// The body of the thread.
pub(super) fn run(name: &str, counters: Arc<Counters>, started: &Reply<()>, inbox: &mpsc::Receiver<Command>) {
    let mut held = match Owner::new(name, counters) {
        Ok(owner) => Held(Some(owner)),
        Err(error) => return answer(started, Err(error)),
    };
    answer(started, Ok(()));
    let farewell = held.0.as_mut().and_then(|owner| owner.serve(inbox));
    drop(held);
    if let Some(farewell) = farewell {
        // Nobody listens any more when the caller's deadline has passed.
        let _ = farewell.send(());
    }
}

fn answer<T>(reply: &Reply<T>, result: Result<T, SessionError>) {
    if reply.send(result).is_err() {
        tracing::debug!("an answer came after its asker's deadline");
    }
}

/// Decides what becomes of the owner when its thread ends: all is given back when NIXL has no transfer; else, and after
/// a panic, everything stays as it is until the process ends, for NIXL may still read and write the memory.
struct Held(Option<Owner>);

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut owner) = self.0.take() else { return };
        drop(std::mem::take(&mut owner.endpoints));
        let in_use = owner.live.as_ref().is_some_and(|live| !live.transfers.is_empty());
        if in_use || std::thread::panicking() {
            tracing::debug!(
                "a session ends with transfers that have not ended; its memory stays until the process ends"
            );
            std::mem::forget(owner);
        }
    }
}

/// What exists once the backend does.
struct Live {
    backend: Backend,
    transfers: Transfers,
    notifications: NotificationMap,
}

struct Owner {
    name: String,
    endpoints: Endpoints,
    live: Option<Live>,
    regions: Regions,
    agent: Agent,
    peers: Peers,
    /// The peers whose memory is used in parts, each by the endpoint of that use.
    attached: HashMap<EndpointId, Arc<str>>,
    /// Operations that may be posted only when another one with the same peer has ended.
    waiting: VecDeque<Box<Begin>>,
    counters: Arc<Counters>,
    next_id: u64,
    next_tick: Instant,
}

impl Owner {
    fn new(name: &str, counters: Arc<Counters>) -> Result<Self, SessionError> {
        let config = AgentConfig {
            // The progress thread halves the throughput; this thread makes progress by polling.
            enable_prog_thread: false,
            // The listener binds every interface and obeys anyone.
            enable_listen_thread: false,
            // One thread calls the agent.
            thread_sync: ThreadSync::None,
            ..AgentConfig::default()
        };
        let agent = Agent::new_configured(name, &config)
            .map_err(|error| SessionError::nixl("create an agent", &error))?;
        // The first question about a plugin loads it.
        agent
            .get_plugin_params(BACKEND)
            .map_err(|error| SessionError::nixl("load the UCX plugin", &error))?;
        Ok(Self {
            name: name.to_owned(),
            endpoints: Endpoints::default(),
            live: None,
            regions: Regions::default(),
            agent,
            peers: Peers::default(),
            attached: HashMap::new(),
            waiting: VecDeque::new(),
            counters,
            next_id: 0,
            next_tick: Instant::now() + TICK,
        })
    }

    fn serve(&mut self, inbox: &mpsc::Receiver<Command>) -> Option<mpsc::Sender<()>> {
        let mut pacing = Pacing::default();
        loop {
            let mut busy = false;
            loop {
                match inbox.try_recv() {
                    Ok(command) => {
                        busy = true;
                        if let ControlFlow::Break(farewell) = self.execute(command) {
                            return Some(farewell);
                        }
                    }
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return None,
                }
            }
            busy |= self.poll();
            let command = match pacing.after(busy, self.expects()) {
                Rest::Spin => continue,
                Rest::Yield => {
                    std::thread::yield_now();
                    continue;
                }
                Rest::Park(longest) => inbox.recv_timeout(longest),
                Rest::Block => inbox.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
            };
            match command {
                Ok(command) => {
                    if let ControlFlow::Break(farewell) = self.execute(command) {
                        return Some(farewell);
                    }
                    pacing.happened();
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Whether anything can come from outside.
    fn expects(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.transfers.in_flight() > 0 || !self.endpoints.is_empty())
    }

    fn execute(&mut self, command: Command) -> ControlFlow<mpsc::Sender<()>> {
        match command {
            Command::CreateBackend(reply) => answer(&reply, self.create_backend()),
            Command::MemoryKinds(reply) => answer(&reply, self.memory_kinds()),
            Command::Metadata(reply) => answer(&reply, self.metadata()),
            Command::LoadPeer(peer, reply) => answer(&reply, self.load_peer(&peer)),
            Command::MeetPeer(peer, answer) => answer.give(self.meet_peer(&peer)),
            Command::Register(memory, reply) => answer(&reply, self.register(memory)),
            Command::Release(region) => {
                self.regions.release(region);
                self.drop_released();
            }
            Command::Open(endpoint, reply) => {
                let id = EndpointId(self.id());
                self.endpoints.open(id, endpoint);
                answer(&reply, Ok(id));
            }
            Command::Close(endpoint) => self.close(endpoint),
            Command::Begin(begin) => self.begin(begin),
            Command::Unwanted => self.retry_waiting(),
            Command::Offer(offer) => self.offer(*offer),
            Command::Attach(attach) => self.attach(*attach),
            Command::Post(transfer) => self.post(transfer),
            Command::Notify { peer, message } => self.notify(&peer, &message),
            Command::Census(reply) => answer(&reply, Ok(self.census())),
            Command::Shutdown(farewell) => return ControlFlow::Break(farewell),
        }
        ControlFlow::Continue(())
    }

    fn census(&self) -> Census {
        Census {
            endpoints: self.endpoints.len(),
            regions: self.regions.len(),
            in_flight: self.live.as_ref().map_or(0, |live| live.transfers.in_flight()) + self.waiting.len(),
            peers: self.peers.len(),
            peer_regions: self.peers.ranges(),
        }
    }

    fn require_backend(&self) -> Result<(), SessionError> {
        if self.live.is_some() { Ok(()) } else { Err(SessionError::Backend("was not created yet")) }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}
