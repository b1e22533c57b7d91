//! The session's thread: owns the NIXL agent and is the only one that calls it. Takes commands, polls notifications and
//! writes, tells endpoints. Its end with writes in flight leaks the agent on purpose: NIXL cannot cancel.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nixl_sys::{Agent, AgentConfig, Backend, MemType, NixlError, NotificationMap, ThreadSync};
use xxhash_rust::xxh3::xxh3_64;

use super::command::{Command, RegionId, Reply, Write};
use super::endpoint::{Claim, EndpointId};
use super::endpoints::Endpoints;
use super::pacing::{Pacing, Rest};
use super::peers::Peers;
use super::regions::Regions;
use super::transfers::{Outcome, PostError, Transfers};
use super::{BACKEND, Counters, SessionError};
use crate::memory::Arena;
use crate::metadata::{CheckedMetadata, MemoryKind};

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

/// Decides what becomes of the owner when its thread ends: all is given back when nothing is in flight; else, and after
/// a panic, everything stays as it is until the process ends, for NIXL may still read and write the memory.
struct Held(Option<Owner>);

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut owner) = self.0.take() else { return };
        drop(std::mem::take(&mut owner.endpoints));
        let in_flight = owner.live.as_ref().is_some_and(|live| !live.transfers.is_empty());
        if in_flight || std::thread::panicking() {
            tracing::debug!("a session ends with writes in flight; its memory stays until the process ends");
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
    endpoints: Endpoints,
    live: Option<Live>,
    regions: Regions,
    agent: Agent,
    peers: Peers,
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
            endpoints: Endpoints::default(),
            live: None,
            regions: Regions::default(),
            agent,
            peers: Peers::default(),
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
                    // The next round is a busy one, whatever it finds.
                    pacing = Pacing::default();
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Whether anything can come from outside.
    fn expects(&self) -> bool {
        self.live.as_ref().is_some_and(|live| !live.transfers.is_empty() || !self.endpoints.is_empty())
    }

    fn execute(&mut self, command: Command) -> ControlFlow<mpsc::Sender<()>> {
        match command {
            Command::CreateBackend(reply) => answer(&reply, self.create_backend()),
            Command::MemoryKinds(reply) => answer(&reply, self.memory_kinds()),
            Command::Metadata(reply) => answer(&reply, self.metadata()),
            Command::LoadPeer(peer, reply) => answer(&reply, self.load_peer(&peer)),
            Command::Register(arena, reply) => answer(&reply, self.register(arena)),
            Command::Release(region) => {
                self.regions.release(region);
                self.drop_released();
            }
            Command::Open(endpoint, reply) => {
                let id = EndpointId(self.id());
                self.endpoints.open(id, endpoint);
                answer(&reply, Ok(id));
            }
            Command::Close(endpoint) => self.endpoints.close(endpoint),
            Command::Write(write) => self.write(write),
            Command::Notify { peer, message } => self.notify(&peer, &message),
            Command::Shutdown(farewell) => return ControlFlow::Break(farewell),
        }
        ControlFlow::Continue(())
    }

    fn create_backend(&mut self) -> Result<(), SessionError> {
        if self.live.is_some() {
            return Err(SessionError::Backend("exists already"));
        }
        let nixl = |error: NixlError| SessionError::nixl("create the UCX backend", &error);
        let (_, parameters) = self.agent.get_plugin_params(BACKEND).map_err(nixl)?;
        let backend = self.agent.create_backend(BACKEND, &parameters).map_err(nixl)?;
        let transfers = Transfers::new(&backend).map_err(nixl)?;
        let notifications = NotificationMap::new().map_err(nixl)?;
        self.live = Some(Live { backend, transfers, notifications });
        Ok(())
    }

    fn memory_kinds(&self) -> Result<Vec<MemoryKind>, SessionError> {
        let nixl = |error: NixlError| SessionError::nixl("tell the UCX plugin's kinds of memory", &error);
        let (kinds, _) = self.agent.get_plugin_params(BACKEND).map_err(nixl)?;
        let mut known = Vec::new();
        for kind in kinds.iter() {
            match kind.map_err(nixl)? {
                MemType::Dram => known.push(MemoryKind::Dram),
                MemType::Vram => known.push(MemoryKind::Vram),
                MemType::Block => known.push(MemoryKind::Block),
                MemType::Object => known.push(MemoryKind::Object),
                MemType::File => known.push(MemoryKind::File),
                MemType::Unknown => {}
            }
        }
        Ok(known)
    }

    fn metadata(&self) -> Result<Vec<u8>, SessionError> {
        self.require_backend()?;
        self.agent.get_local_md().map_err(|error| SessionError::nixl("give its metadata", &error))
    }

    fn load_peer(&mut self, peer: &CheckedMetadata) -> Result<(), SessionError> {
        self.require_backend()?;
        let digest = xxh3_64(peer.bytes());
        if !self.peers.must_load(peer.agent(), digest)? {
            return Ok(());
        }
        let name = self
            .agent
            .load_remote_md(peer.bytes())
            .map_err(|error| SessionError::nixl("load the peer's metadata", &error))?;
        if name != peer.agent() {
            return Err(SessionError::Nixl {
                call: "load the peer's metadata",
                reason: "it read another agent name than this crate".to_owned(),
            });
        }
        self.peers.loaded(&name, digest);
        Ok(())
    }

    fn register(&mut self, arena: Arc<Arena>) -> Result<RegionId, SessionError> {
        self.require_backend()?;
        let id = RegionId(self.id());
        self.regions.register(&self.agent, id, arena)?;
        Ok(id)
    }

    fn drop_released(&mut self) {
        let transfers = self.live.as_ref().map(|live| &live.transfers);
        self.regions.drop_released(|region| transfers.is_some_and(|transfers| transfers.uses(region)));
    }

    fn write(&mut self, write: Box<Write>) {
        let Some(live) = &mut self.live else { return };
        if self.peers.is_lost(&write.peer) {
            return;
        }
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        match live.transfers.post(&self.agent, write) {
            Ok(None) => {}
            Ok(Some(write)) => self.endpoints.written(write.endpoint, write.token),
            Err((write, PostError::Refused(error))) => {
                self.endpoints.refused(write.endpoint, write.token, &error.to_string());
            }
            Err((write, PostError::PeerFailed(error))) => self.lose(&write.peer, &error.to_string()),
        }
    }

    fn notify(&mut self, peer: &str, message: &[u8]) {
        let Some(live) = &self.live else { return };
        if self.peers.is_lost(peer) {
            return;
        }
        if let Err(error) = self.agent.send_notification(peer, message, Some(&live.backend)) {
            self.lose(peer, &error.to_string());
        }
    }

    /// One round: notifications, then writes (polling both is what makes UCX progress). True when something happened.
    fn poll(&mut self) -> bool {
        if !self.expects() {
            return false;
        }
        let mut busy = self.poll_notifications();
        let mut lost = Vec::new();
        if let Some(live) = &mut self.live {
            let endpoints = &self.endpoints;
            live.transfers.poll(&self.agent, |write, outcome| {
                busy = true;
                match outcome {
                    Outcome::Done => endpoints.written(write.endpoint, write.token),
                    Outcome::PeerFailed(reason) => lost.push((Arc::clone(&write.peer), reason)),
                }
            });
        }
        for (peer, reason) in lost {
            self.lose(&peer, &reason);
        }
        if busy {
            self.drop_released();
        }
        let now = Instant::now();
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.endpoints.tick(now);
        }
        busy
    }

    fn poll_notifications(&mut self) -> bool {
        let Some(live) = &mut self.live else { return false };
        let notifications = &mut live.notifications;
        if let Err(error) = self.agent.get_notifications(notifications, None) {
            tracing::debug!(%error, "NIXL gave no notifications");
            return false;
        }
        if !matches!(notifications.len(), Ok(1..)) {
            return false;
        }
        for peer in notifications.agents() {
            // nixl-sys gives no way to read a notification of an agent whose name is no text.
            let Ok(peer) = peer else {
                self.counters.foreign.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let Ok(messages) = notifications.get_notifications(peer) else { continue };
            for message in messages.filter_map(Result::ok) {
                if self.endpoints.notified(peer, &message) == Claim::Foreign {
                    self.counters.foreign.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        // The map can be emptied only by a call that refuses bytes which are no text, so a new one takes its place.
        match NotificationMap::new() {
            Ok(empty) => *notifications = empty,
            Err(error) => tracing::error!(%error, "NIXL gave no new notification map"),
        }
        true
    }

    fn lose(&mut self, peer: &str, reason: &str) {
        if self.peers.lose(peer, reason) {
            tracing::info!(peer, reason, "peer lost");
            self.endpoints.lost(peer, reason);
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
