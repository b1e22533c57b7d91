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
/// An idle connector's thread sleeps; with an operation open it wakes at least every millisecond to look for news. One that
/// is over and has its memory back is not open, dropped or not. So a peer that comes with the metadata of an operation that
/// is over may wait until another one is open here, or until its own deadline: over TCP bytes move only while both sides
/// look.
///
/// All methods can be called from any thread. Those that begin an operation give it back as a [`Starting`] and never block;
/// the others that ask the agent's thread block for as long as it needs, usually less than a millisecond and never more
/// than 30 s, so call them on a thread that may block.
///
/// # Example
/// ```no_run
/// use std::path::Path;
/// use std::time::{Duration, Instant};
///
/// use nixl_connect::{Connector, Descriptor, Library};
///
/// let library = Library::load(Path::new("/opt/nixl/libnixl_capi.so"), Path::new("/opt/nixl/plugins"))?;
/// let connector = Connector::start_named("decode-7", &library)?;
/// let operation = connector.create_writable(Descriptor::zeroed(4096)?).blocking()?;
/// println!("{}", operation.metadata().to_json());
/// operation.wait_for_completion(Instant::now() + Duration::from_secs(60)).blocking()?;
/// drop(operation);
/// connector.close(Instant::now() + Duration::from_secs(5))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Connector {
    session: Arc<Session>,
    name: Arc<str>,
}

impl Connector {
    /// Starts a connector under a name of its own, a UUID without dashes. Blocks for about half a second,
    /// nearly all of it the first load of the UCX plugin in the process; with `UCX_MEM_MMAP_HOOK_MODE=reloc` for a sixth of
    /// that, since UCX then patches no code.
    ///
    /// UCX takes its transports and devices from `UCX_TLS`, `UCX_NET_DEVICES` and the like, which must be set before.
    ///
    /// # Errors
    /// `Nixl` when NIXL cannot create an agent, load the UCX plugin, or UCX refuses its settings; `Thread` when the system
    /// has no thread; `NoAnswer` when NIXL takes more than 30 s.
    pub fn start(library: &Library) -> Result<Self, SessionError> {
        Self::start_named(&Uuid::new_v4().simple().to_string(), library)
    }

    /// As [`Connector::start`], under the name of a worker: 1 to 200 bytes of printable text. The NIXL agent's name has
    /// this as its beginning and is new at every start, for NIXL can crash on a peer that comes back under its old name.
    ///
    /// # Errors
    /// `Name` when the name is too long or has control characters, and as [`Connector::start`].
    pub fn start_named(worker: &str, library: &Library) -> Result<Self, SessionError> {
        if worker.len() > 200 {
            return Err(SessionError::Name(worker.chars().take(64).collect()));
        }
        let session = Session::start(&format!("{worker}-{}", Uuid::new_v4().simple()), library)?;
        session.create_backend()?;
        Ok(Self { session: Arc::new(session), name: worker.into() })
    }

    /// The worker's name, as it was given; a UUID without dashes after [`Connector::start`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the NIXL agent, `<worker's name>-<UUID without dashes>`: the one that peers see.
    pub fn agent(&self) -> &str {
        self.session.agent()
    }

    /// The name of the host that this process runs on, from `uname`.
    pub fn hostname(&self) -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    /// This agent's metadata with all memory that is registered now, in text form: what a passive peer wants for
    /// [`expect_sender`](crate::PassiveOperation::expect_sender). Who has it can reach that memory.
    ///
    /// # Errors
    /// When NIXL does not give it, or it is larger than [`MAX_AGENT_METADATA`](crate::MAX_AGENT_METADATA); `NoAnswer` or
    /// `Closed` when the agent's thread does not answer.
    pub fn agent_metadata(&self) -> Result<String, SessionError> {
        self.session.agent_metadata()
    }

    /// Offers memory to one peer to read, once: 1 to [`MAX_DESCRIPTORS`](crate::MAX_DESCRIPTORS) descriptors, all on the
    /// host or all on devices. Each is a [`Descriptor`] or an `Arc` of one; the `Arc` can be read here meanwhile, and be
    /// offered to other peers by further operations.
    ///
    /// The [`Starting`] fails with `NoDescriptors`, `TooManyDescriptors`, `MixedMemory` or `OtherConnector` for a mistake
    /// in `local`, and with `Session` when NIXL does not register the memory.
    pub fn create_readable(&self, local: impl Into<Locals<Arc<Descriptor>>>) -> Starting<ReadableOperation> {
        ReadableOperation::create(self, OperationKind::Read, local.into())
    }

    /// Offers memory to one peer to write, once. As [`Connector::create_readable`], but the descriptors are given up until
    /// the operation is over.
    pub fn create_writable(&self, local: impl Into<Locals<Descriptor>>) -> Starting<WritableOperation> {
        WritableOperation::create(self, OperationKind::Write, local.into())
    }

    /// Begins to read what a [`ReadableOperation`] offers, into as many descriptors of the same sizes, which are given up
    /// until the operation is over.
    ///
    /// The [`Starting`] fails with `Kind`, `Count`, `Size`, `MixedMemory`, `NoDescriptors`, `TooManyDescriptors`,
    /// `OtherConnector` or `OwnAgent` for a mistake, before NIXL hears of it; with `StalePeer` when the peer was lost before
    /// or is another process by now; and with `Session` when something on this side fails.
    pub fn begin_read(
        &self,
        remote: RdmaMetadata,
        local: impl Into<Locals<Descriptor>>,
    ) -> Starting<ReadOperation> {
        ReadOperation::begin(self, OperationKind::Read, local.into(), remote)
    }

    /// Begins to write into what a [`WritableOperation`] offers, from as many descriptors of the same sizes. They may be
    /// shared, as in [`Connector::create_readable`]; it fails as [`Connector::begin_read`] does.
    pub fn begin_write(
        &self,
        local: impl Into<Locals<Arc<Descriptor>>>,
        remote: RdmaMetadata,
    ) -> Starting<WriteOperation> {
        WriteOperation::begin(self, OperationKind::Write, local.into(), remote)
    }

    /// What the connector did since its start, and holds now.
    ///
    /// # Errors
    /// `NoAnswer` or `Closed` when the agent's thread does not answer.
    pub fn statistics(&self) -> Result<SessionStatistics, SessionError> {
        self.session.statistics()
    }

    /// Ends the agent, if this is the last clone and no operation lives, and waits for its thread until `deadline`. A
    /// connector whose last clone is only dropped waits for at most 2 s.
    ///
    /// # Errors
    /// `NoAnswer` when NIXL keeps the thread longer; `InUse` when there are other clones or operations: then this clone is
    /// gone, and the agent lives on with the others.
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
