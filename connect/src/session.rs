//! A session: a handle to the one thread that owns a NIXL agent, its registered memory, posted transfers and
//! notifications. Everything else talks to it by channel; every answer has a deadline. I/O happens on that thread.

mod command;
mod endpoint;
mod endpoints;
mod error;
mod ledger;
mod owner;
mod pacing;
mod peers;
mod regions;
mod transfers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) use command::{Answer, Attach, Begin, Local, Offer, Opened, RegionId, Transfer};
pub(crate) use endpoint::{Claim, Endpoint, EndpointId};
pub use error::SessionError;
pub(crate) use regions::{Abandoned, Backing};

use crate::library::Library;
use crate::memory::Arena;
use crate::metadata::{CheckedMetadata, Encoding, MemoryKind, encode_agent_metadata};
use command::{Census, Command, Reply};

/// Longest wait for the session's thread to answer a command. The slowest one, the first load of the UCX plugin, takes
/// half a second on an idle machine.
const ANSWER: Duration = Duration::from_secs(30);
/// Longest wait for the thread when a session is dropped.
const FAREWELL: Duration = Duration::from_secs(2);
/// UCX, the one backend of a session.
const BACKEND: &str = "UCX";

/// What a session did since its start, and what it holds at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionStatistics {
    /// Notifications that nobody claimed, since the start: of operations that are over, or of strangers.
    pub foreign_notifications: u64,
    /// Transfers posted to NIXL, since the start.
    pub transfers: u64,
    /// Bytes of memory that stay mapped until the process ends, because a peer may still reach them, or because NIXL may have
    /// begun a transfer that it failed to post. Memory that several operations share is counted once, by the first of them
    /// that left it.
    pub abandoned_bytes: u64,
    /// Streams and remote memories that are open, and operations to which something may still happen. While there are none, and no transfer is in
    /// flight, the agent's thread sleeps.
    pub endpoints: usize,
    /// Ranges of memory that are registered.
    pub regions: usize,
    /// Transfers that were begun and have not ended, without those that NIXL failed to post.
    pub in_flight: usize,
    /// Peers that are known, lost ones too.
    pub peers: usize,
    /// Ranges of peers' memory that NIXL has been told of.
    pub peer_regions: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) foreign: AtomicU64,
    pub(crate) transfers: AtomicU64,
    pub(crate) abandoned: AtomicU64,
}

/// A NIXL agent of this process. Streams hold what they need of it, but end when it is dropped.
///
/// When it is dropped or closed with a transfer still in flight, or after NIXL failed to post one, the agent and the memory
/// are left as they are: NIXL cannot take a transfer back, so only the end of the process ends it. Workers end with `_exit`.
#[derive(Debug)]
pub struct Session {
    link: Link,
    thread: Option<JoinHandle<()>>,
}

impl Session {
    /// Starts the thread, creates the agent under `name` (unique per process and start) and loads the UCX plugin, which
    /// is what makes a warm worker warm. Nothing can reach the agent before [`Session::create_backend`].
    ///
    /// # Errors
    /// When the thread cannot be started, or NIXL cannot create the agent or load the plugin.
    pub fn start(name: &str, library: &Library) -> Result<Self, SessionError> {
        if name.is_empty() || name.len() > 256 || name.contains(char::is_control) {
            return Err(SessionError::Name(name.chars().take(64).collect()));
        }
        let (commands, inbox) = mpsc::channel();
        let (started, answer) = mpsc::channel();
        let counters = Arc::new(Counters::default());
        let (thread_name, thread_counters) = (name.to_owned(), Arc::clone(&counters));
        // The library stays loaded for the life of the process; the reference only proves that it was.
        tracing::debug!(agent = name, version = %library.version(), "starting a NIXL session");
        let thread = std::thread::Builder::new()
            .name("nixl-session".to_owned())
            .spawn(move || owner::run(&thread_name, thread_counters, &started, &inbox))
            .map_err(|error| SessionError::Thread(error.to_string()))?;
        let session = Self { link: Link { commands, agent: name.into(), counters }, thread: Some(thread) };
        await_answer(&answer, "start")?;
        Ok(session)
    }

    /// Creates the UCX backend. UCX reads `UCX_TLS`, `UCX_NET_DEVICES` and the like now, so they must be set before (see
    /// [`environment::set`](crate::environment::set)).
    ///
    /// # Errors
    /// When it exists already, or UCX refuses.
    pub fn create_backend(&self) -> Result<(), SessionError> {
        self.link.ask("create_backend", Command::CreateBackend)
    }

    /// The kinds of memory that the UCX plugin says it can move; known without a backend.
    ///
    /// # Errors
    /// `Nixl` when the plugin does not tell; `NoAnswer` or `Closed` when the session's thread does not answer.
    pub fn memory_kinds(&self) -> Result<Vec<MemoryKind>, SessionError> {
        self.link.ask("memory_kinds", Command::MemoryKinds)
    }

    /// The agent's metadata in text form, as it stands at this moment: with no memory registered it exposes none, which
    /// is right for an active side.
    ///
    /// # Errors
    /// `Backend` before [`Session::create_backend`]; `Nixl` or `OwnMetadata` when NIXL gives none that can be used.
    pub fn agent_metadata(&self) -> Result<String, SessionError> {
        self.link.agent_metadata()
    }

    /// Lets NIXL load a peer's metadata. Loading the same bytes twice is no error.
    ///
    /// # Errors
    /// [`SessionError::PeerLost`] for a name that was lost before: a peer that comes back is a new agent with a new name.
    pub fn load_peer(&self, peer: CheckedMetadata) -> Result<(), SessionError> {
        self.link.load_peer(peer)
    }

    /// Registers memory for as long as the session lives. Streams do this themselves.
    ///
    /// # Errors
    /// `Backend` before [`Session::create_backend`]; `Nixl` when NIXL refuses, which limits on locked memory can cause.
    pub fn register(&self, arena: Arc<Arena>) -> Result<(), SessionError> {
        self.link.register(arena).map(drop)
    }

    /// The agent's name.
    pub fn agent(&self) -> &str {
        &self.link.agent
    }

    /// Figures since the start and at this moment.
    ///
    /// # Errors
    /// `NoAnswer` or `Closed` when the session's thread does not answer.
    pub fn statistics(&self) -> Result<SessionStatistics, SessionError> {
        let Census { endpoints, regions, in_flight, peers, peer_regions } =
            self.link.ask("census", Command::Census)?;
        let counters = &self.link.counters;
        Ok(SessionStatistics {
            foreign_notifications: counters.foreign.load(Ordering::Relaxed),
            transfers: counters.transfers.load(Ordering::Relaxed),
            abandoned_bytes: counters.abandoned.load(Ordering::Relaxed),
            endpoints,
            regions,
            in_flight,
            peers,
            peer_regions,
        })
    }

    /// Ends the session and waits for its thread, at most until `deadline`. Open streams end with `Closed`. All commands
    /// given before are carried out first, so a worker that closes before it exits loses no last notification.
    ///
    /// # Errors
    /// [`SessionError::NoAnswer`] when NIXL keeps the thread longer.
    pub fn close(mut self, deadline: Instant) -> Result<(), SessionError> {
        self.end(deadline)
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    fn end(&mut self, deadline: Instant) -> Result<(), SessionError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let (reply, answer) = mpsc::channel();
        if self.link.commands.send(Command::Shutdown(reply)).is_err() {
            // The thread is gone already; its panic, if it was one, has been printed.
            return thread.join().map_err(|_| SessionError::Closed);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        // A thread that NIXL never gives back is not joined: the process is about to end.
        match answer.recv_timeout(left) {
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
                thread.join().map_err(|_| SessionError::Closed)
            }
            Err(mpsc::RecvTimeoutError::Timeout) => Err(SessionError::NoAnswer("close")),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(error) = self.end(Instant::now() + FAREWELL) {
            tracing::warn!(%error, "a NIXL session did not end in time");
        }
    }
}

/// The way to a session's thread, for streams, operations and remote memory.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    commands: mpsc::Sender<Command>,
    agent: Arc<str>,
    counters: Arc<Counters>,
}

impl Link {
    pub(crate) fn agent_metadata(&self) -> Result<String, SessionError> {
        let bytes = self.ask("agent_metadata", Command::Metadata)?;
        encode_agent_metadata(&bytes, Encoding::Base64)
            .map_err(|error| SessionError::OwnMetadata(error.to_string()))
    }

    pub(crate) fn load_peer(&self, peer: CheckedMetadata) -> Result<(), SessionError> {
        self.ask("load_peer", |reply| Command::LoadPeer(Box::new(peer), reply))
    }

    pub(crate) fn register(&self, memory: Arc<dyn Backing>) -> Result<RegionId, SessionError> {
        self.ask("register", |reply| Command::Register(memory, reply))
    }

    pub(crate) fn open(&self, endpoint: Arc<dyn Endpoint>) -> Result<EndpointId, SessionError> {
        self.ask("open", |reply| Command::Open(endpoint, reply))
    }

    /// The following do not wait; what becomes of them is told to the endpoint, or to the answer that they carry. A
    /// session that is gone has told its endpoints so already.
    pub(crate) fn meet_peer(&self, peer: CheckedMetadata, answer: Answer<()>) {
        self.tell(Command::MeetPeer(Box::new(peer), answer));
    }

    pub(crate) fn begin(&self, begin: Begin) {
        self.tell(Command::Begin(Box::new(begin)));
    }

    /// An operation that was to begin is not wanted any more.
    pub(crate) fn unwanted(&self) {
        self.tell(Command::Unwanted);
    }

    pub(crate) fn offer(&self, offer: Offer) {
        self.tell(Command::Offer(Box::new(offer)));
    }

    pub(crate) fn attach(&self, attach: Attach) {
        self.tell(Command::Attach(Box::new(attach)));
    }

    pub(crate) fn close(&self, endpoint: EndpointId) {
        self.tell(Command::Close(endpoint));
    }

    pub(crate) fn release(&self, region: RegionId) {
        self.tell(Command::Release(region));
    }

    /// Counts memory that is left mapped until the process ends, because a peer may still reach it.
    pub(crate) fn abandon(&self, memory: &dyn Backing) {
        self.counters.abandoned.fetch_add(memory.abandon(), Ordering::Relaxed);
    }

    pub(crate) fn post(&self, transfer: Transfer) {
        self.tell(Command::Post(Box::new(transfer)));
    }

    pub(crate) fn notify(&self, peer: Arc<str>, message: Vec<u8>) {
        self.tell(Command::Notify { peer, message });
    }

    /// Gives back what an operation or remote memory held.
    pub(crate) fn close_opened(&self, opened: &Opened) {
        self.close(opened.endpoint);
        opened.regions.iter().for_each(|region| self.release(*region));
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.agent, &other.agent)
    }

    fn tell(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::debug!(agent = &*self.agent, "a command came after the session's end");
        }
    }

    fn ask<T>(
        &self,
        what: &'static str,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, SessionError> {
        let (reply, answer) = mpsc::channel();
        self.commands.send(command(reply)).map_err(|_| SessionError::Closed)?;
        await_answer(&answer, what)
    }
}

fn await_answer<T>(
    answer: &mpsc::Receiver<Result<T, SessionError>>,
    what: &'static str,
) -> Result<T, SessionError> {
    match answer.recv_timeout(ANSWER) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(SessionError::NoAnswer(what)),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(SessionError::Closed),
    }
}
