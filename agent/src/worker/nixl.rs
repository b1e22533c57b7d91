//! The worker's NIXL: loaded warm, assigned to a run later, when transports and devices are known. The environment that
//! NIXL and UCX read is decided here and nowhere else.
#![allow(unsafe_code)] // setting environment variables, which C libraries read

use std::path::Path;
use std::sync::Arc;

use nixl_connect::{Library, MemoryKind, Session, environment};
use rustix::process::{Resource, getrlimit};

use super::{placement, ucx};
use crate::protocol::{BackendFacts, FromWorker, Network, Used, WorkerName};

/// A loaded library and its agent.
#[derive(Debug)]
pub(super) struct Nixl {
    session: Arc<Session>,
    log: Option<Arc<ucx::Log>>,
    assigned: Option<Arc<AssignedAgent>>,
}

/// An agent that can be reached: its backend exists.
#[derive(Debug)]
pub(super) struct AssignedAgent {
    pub(super) session: Arc<Session>,
    /// The agent's metadata from before any memory was registered: all that a source shows of itself.
    pub(super) metadata: String,
    log: Option<Arc<ucx::Log>>,
}

impl AssignedAgent {
    /// What messages of that length to other processes go over; empty as long as nobody knows.
    pub(super) fn used(&self, length: u64) -> Used {
        self.log.as_ref().map(|log| log.used(length)).unwrap_or_default()
    }
}

/// What holds for every worker. UCX' own signal handlers would hide crashes, and without the user timeout a peer whose
/// packets are dropped is never noticed. Its default way to hear of mappings patches code while it spins for 0.4 s; by
/// relocation it hears of the same ones, and a worker is warm five times sooner.
const ALWAYS: [(&str, &str); 3] =
    [("UCX_ERROR_SIGNALS", ""), ("UCX_TCP_USER_TIMEOUT", "10s"), ("UCX_MEM_MMAP_HOOK_MODE", "reloc")];

impl Nixl {
    /// Loads library and plugin, and says what they can.
    pub(super) fn load(
        worker: &WorkerName,
        library: &str,
        plugins: &str,
    ) -> Result<(Self, FromWorker), String> {
        // Without its log nobody knows what UCX uses, but it works.
        let log = ucx::Log::start().inspect_err(|error| tracing::warn!(%error, "no pipe for UCX' log")).ok();
        let words = log.as_ref().map_or_else(Vec::new, |log| log.variables().into());
        let variables = ALWAYS.into_iter().chain(environment::before_loading());
        let variables = variables.chain(words.iter().map(|(name, value)| (*name, value.as_str())));
        // SAFETY: this is the first thing a worker is told: no other thread reads the environment: the
        // one of UCX' log calls nothing but the kernel and our own code.
        unsafe { environment::set(variables.chain([("NIXL_PLUGIN_DIR", plugins)])) };
        let library =
            Library::load(Path::new(library), Path::new(plugins)).map_err(|error| error.to_string())?;
        let session = Session::start(&worker.0, &library).map_err(|error| error.to_string())?;
        let kinds = session.memory_kinds().map_err(|error| error.to_string())?;
        let memory_types = kinds.into_iter().map(|kind| name(kind).to_owned()).collect();
        let facts = FromWorker::Ready {
            nixl_version: library.version().to_string(),
            backends: vec![BackendFacts { name: "UCX".into(), memory_types }],
            memlock: lockable(),
        };
        Ok((Self { session: Arc::new(session), log: log.map(Arc::new), assigned: None }, facts))
    }

    /// Decides transports and devices, for good, and creates the backend with them.
    pub(super) fn assign(&mut self, network: &Network) -> Result<(), String> {
        if self.assigned.is_some() {
            return Err("the worker is assigned already".into());
        }
        if network.transports.is_empty() {
            return Err("no transport is allowed".into());
        }
        // Before the backend is made: UCX looks where it runs to find the device that is nearest.
        if !network.cpus.is_empty()
            && let Err(error) = placement::run_on(&network.cpus)
        {
            tracing::warn!(%error, cpus = ?network.cpus, "the worker cannot run on the processors near its devices");
        }
        let mut variables = vec![("UCX_TLS", environment::transports(&network.transports.join(",")))];
        if !network.devices.is_empty() {
            variables.push(("UCX_NET_DEVICES", network.devices.join(",")));
        }
        // SAFETY: the session's thread sleeps until it is given a command, and no hop exists before the assignment.
        unsafe { environment::set(variables) };
        self.session.create_backend().map_err(|error| {
            format!(
                "transports {}, devices {}: {error}",
                network.transports.join(","),
                network.devices.join(",")
            )
        })?;
        let metadata = self.session.agent_metadata().map_err(|error| error.to_string())?;
        let (session, log) = (Arc::clone(&self.session), self.log.clone());
        self.assigned = Some(Arc::new(AssignedAgent { session, metadata, log }));
        Ok(())
    }

    /// The agent, once it can be reached.
    pub(super) fn assigned(&self) -> Option<&Arc<AssignedAgent>> {
        self.assigned.as_ref()
    }
}

/// Bytes that this process may lock; `None` for no limit, which the capability IPC_LOCK lifts too, but only in the first user
/// namespace: the drivers of RDMA ask there.
fn lockable() -> Option<u64> {
    let first = std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    let capable = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::IPC_LOCK));
    if first && capable { None } else { getrlimit(Resource::Memlock).current }
}

/// NIXL's own names.
fn name(kind: MemoryKind) -> &'static str {
    match kind {
        MemoryKind::Dram => "DRAM",
        MemoryKind::Vram => "VRAM",
        MemoryKind::Block => "BLOCK",
        MemoryKind::Object => "OBJECT",
        MemoryKind::File => "FILE",
    }
}
