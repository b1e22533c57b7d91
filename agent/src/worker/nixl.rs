//! The worker's NIXL: loaded warm, assigned to a run later, when transports and devices are known. The environment that
//! NIXL and UCX read is decided here and nowhere else.
#![allow(unsafe_code)] // setting environment variables, which C libraries read

use std::path::Path;
use std::sync::Arc;

use nixl_connect::{Library, MemoryKind, Session, environment};
use rustix::process::{Resource, getrlimit};

use crate::protocol::{BackendFacts, FromWorker, Network, WorkerName};

/// A loaded library and its agent.
#[derive(Debug)]
pub(super) struct Nixl {
    session: Arc<Session>,
    assigned: Option<Arc<AssignedAgent>>,
}

/// An agent that can be reached: its backend exists.
#[derive(Debug)]
pub(super) struct AssignedAgent {
    pub(super) session: Arc<Session>,
    /// The agent's metadata from before any memory was registered: all that a source shows of itself.
    pub(super) metadata: String,
}

/// What holds for every worker. UCX' own signal handlers would hide crashes, and without the user timeout a peer whose
/// packets are dropped is never noticed. Its default way to hear of mappings patches code while it spins for 0.4 s; by
/// relocation it hears of the same ones, and a worker is warm five times sooner.
const ALWAYS: [(&str, &str); 4] = [
    ("UCX_ERROR_SIGNALS", ""),
    ("UCX_TCP_USER_TIMEOUT", "10s"),
    ("UCX_LOG_FILE", "stderr"),
    ("UCX_MEM_MMAP_HOOK_MODE", "reloc"),
];

impl Nixl {
    /// Loads library and plugin, and says what they can.
    pub(super) fn load(
        worker: &WorkerName,
        library: &str,
        plugins: &str,
    ) -> Result<(Self, FromWorker), String> {
        let variables = ALWAYS.into_iter().chain(environment::before_loading());
        // SAFETY: this is the first thing a worker is told: it has one thread, and no C library that reads.
        unsafe { environment::set(variables.chain([("NIXL_PLUGIN_DIR", plugins)])) };
        let library =
            Library::load(Path::new(library), Path::new(plugins)).map_err(|error| error.to_string())?;
        let session = Session::start(&worker.0, &library).map_err(|error| error.to_string())?;
        let kinds = session.memory_kinds().map_err(|error| error.to_string())?;
        let memory_types = kinds.into_iter().map(|kind| name(kind).to_owned()).collect();
        let facts = FromWorker::Ready {
            nixl_version: library.version().to_string(),
            backends: vec![BackendFacts { name: "UCX".into(), memory_types }],
            memlock: getrlimit(Resource::Memlock).current,
        };
        Ok((Self { session: Arc::new(session), assigned: None }, facts))
    }

    /// Decides transports and devices, for good, and creates the backend with them.
    pub(super) fn assign(&mut self, network: &Network) -> Result<(), String> {
        if self.assigned.is_some() {
            return Err("the worker is assigned already".into());
        }
        if network.transports.is_empty() {
            return Err("no transport is allowed".into());
        }
        let mut variables = vec![("UCX_TLS", environment::transports(&network.transports.join(",")))];
        if !network.devices.is_empty() {
            variables.push(("UCX_NET_DEVICES", network.devices.join(",")));
        }
        // SAFETY: the session's thread sleeps until it is given a command, and no hop exists before the assignment.
        unsafe { environment::set(variables) };
        self.session.create_backend().map_err(|error| format!("with {network:?}: {error}"))?;
        let metadata = self.session.agent_metadata().map_err(|error| error.to_string())?;
        self.assigned = Some(Arc::new(AssignedAgent { session: Arc::clone(&self.session), metadata }));
        Ok(())
    }

    /// The agent, once it can be reached.
    pub(super) fn assigned(&self) -> Option<&Arc<AssignedAgent>> {
        self.assigned.as_ref()
    }
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
