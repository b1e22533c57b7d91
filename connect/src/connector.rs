//! A process's door to its peers: one NIXL agent, and the operations on it.

use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use crate::descriptor::{Descriptor, Locals};
use crate::library::Library;
use crate::metadata::{OperationKind, RdmaMetadata};
use crate::operation::{ReadOperation, ReadableOperation, Starting, WritableOperation, WriteOperation};
use crate::session::{Link, Session, SessionError, SessionStatistics};

/// Makes operations. Cheap to clone; the agent and its thread live as long as any clone or any operation.
///
/// An idle connector's thread sleeps; with an operation open it wakes at least every millisecond to look for news.
#[derive(Debug, Clone)]
pub struct Connector {
    session: Arc<Session>,
    name: Arc<str>,
}

impl Connector {
    /// Starts a connector under a name of its own. Blocks for about half a second, nearly all of it the first load of
    /// the UCX plugin.
    ///
    /// UCX takes its transports and devices from `UCX_TLS`, `UCX_NET_DEVICES` and the like, which must be set before.
    ///
    /// # Errors
    /// When NIXL cannot create an agent, load the UCX plugin, or UCX refuses its settings.
    pub fn start(library: &Library) -> Result<Self, SessionError> {
        Self::start_named(&Uuid::new_v4().simple().to_string(), library)
    }

    /// As [`Connector::start`], under the name of a worker: 1 to 200 bytes of printable text. The NIXL agent's name has
    /// this as its beginning and is new at every start, for NIXL can crash on a peer that comes back under its old name.
    pub fn start_named(worker: &str, library: &Library) -> Result<Self, SessionError> {
        if worker.len() > 200 {
            return Err(SessionError::Name(worker.chars().take(64).collect()));
        }
        let session = Session::start(&format!("{worker}-{}", Uuid::new_v4().simple()), library)?;
        session.create_backend()?;
        Ok(Self { session: Arc::new(session), name: worker.into() })
    }

    /// The worker's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the NIXL agent.
    pub fn agent(&self) -> &str {
        self.session.agent()
    }

    /// The name of the host that this process runs on.
    pub fn hostname(&self) -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    /// This agent's metadata with all memory that is registered now, in text form: what a passive peer wants for
    /// [`expect_sender`](crate::PassiveOperation::expect_sender).
    pub fn agent_metadata(&self) -> Result<String, SessionError> {
        self.session.agent_metadata()
    }

    /// Offers memory to one peer to read, once.
    pub fn create_readable(&self, local: impl Into<Locals<Arc<Descriptor>>>) -> Starting<ReadableOperation> {
        ReadableOperation::create(self, OperationKind::Read, local.into())
    }

    /// Offers memory to one peer to write, once.
    pub fn create_writable(&self, local: impl Into<Locals<Descriptor>>) -> Starting<WritableOperation> {
        WritableOperation::create(self, OperationKind::Write, local.into())
    }

    /// Begins to read what a [`ReadableOperation`] offers, into as many descriptors of the same sizes.
    pub fn begin_read(
        &self,
        remote: RdmaMetadata,
        local: impl Into<Locals<Descriptor>>,
    ) -> Starting<ReadOperation> {
        ReadOperation::begin(self, OperationKind::Read, local.into(), remote)
    }

    /// Begins to write into what a [`WritableOperation`] offers, from as many descriptors of the same sizes.
    pub fn begin_write(
        &self,
        local: impl Into<Locals<Arc<Descriptor>>>,
        remote: RdmaMetadata,
    ) -> Starting<WriteOperation> {
        WriteOperation::begin(self, OperationKind::Write, local.into(), remote)
    }

    /// What the connector did and holds.
    pub fn statistics(&self) -> Result<SessionStatistics, SessionError> {
        self.session.statistics()
    }

    /// Ends the agent, if this is the last clone and no operation lives, and waits for its thread until `deadline`. A
    /// connector that is only dropped waits for at most 2 s.
    ///
    /// # Errors
    /// `NoAnswer` when NIXL keeps the thread longer, `InUse` with the connector still there.
    pub fn close(self, deadline: Instant) -> Result<(), SessionError> {
        match Arc::try_unwrap(self.session) {
            Ok(session) => session.close(deadline),
            Err(_) => Err(SessionError::InUse),
        }
    }

    pub(crate) fn link(&self) -> &Link {
        self.session.link()
    }
}

impl PartialEq for Connector {
    /// Two handles to the same agent.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.session, &other.session)
    }
}

impl Eq for Connector {}
