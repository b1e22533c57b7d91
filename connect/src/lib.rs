//! Moves memory between two processes with [NVIDIA NIXL](https://github.com/ai-dynamo/nixl), and is compatible on the wire
//! with `dynamo.nixl_connect`, the Python module of [Dynamo](https://github.com/ai-dynamo/dynamo): a Rust program and a
//! Dynamo worker can be the two ends of one operation. Nothing here knows of Kubernetes, of files, or of runs.
//!
//! A [`Connector`] owns a NIXL agent on a thread of its own and makes four kinds of operations. One side is passive: it
//! offers memory and hands out an [`RdmaMetadata`], a JSON object that the program carries to the other side in its own
//! way. The other side is active: it moves the bytes, and the passive side is told when they are there.
//!
//! | passive | active | bytes move |
//! | --- | --- | --- |
//! | [`ReadableOperation`] | [`ReadOperation`] | from the passive side to the active one |
//! | [`WritableOperation`] | [`WriteOperation`] | from the active side to the passive one |
//!
//! [`guide`] compares all of it with the Python module, method by method, and says what dropping and cancelling cost.
//!
//! # Example
//! Both sides, each in its own process; `send` and `receive` stand for the program's own connection.
//! ```no_run
//! use std::error::Error;
//! use std::path::Path;
//! use std::time::{Duration, Instant};
//!
//! use nixl_connect::{Connector, Descriptor, Library, RdmaMetadata, exit_now};
//!
//! fn connector() -> Result<Connector, Box<dyn Error>> {
//!     // NIXL is loaded at run time. NIXL_PLUGIN_DIR must name the same directory.
//!     let library = Library::load(Path::new("/opt/nixl/libnixl_capi.so"), Path::new("/opt/nixl/plugins"))?;
//!     Ok(Connector::start(&library)?)
//! }
//!
//! fn passive(connector: &Connector, send: impl Fn(String)) -> Result<(), Box<dyn Error>> {
//!     let memory = Descriptor::from_vec(b"some bytes".to_vec())?;
//!     let operation = connector.create_readable(memory).blocking()?;
//!     send(operation.metadata().to_json());
//!     operation.wait_for_completion(Instant::now() + Duration::from_secs(60)).blocking()?;
//!     Ok(())
//! }
//!
//! fn active(connector: &Connector, receive: impl Fn() -> String) -> Result<(), Box<dyn Error>> {
//!     let metadata = RdmaMetadata::parse(&receive())?;
//!     let operation = connector.begin_read(metadata, Descriptor::zeroed(10)?).blocking()?;
//!     operation.wait_for_completion(Instant::now() + Duration::from_secs(60)).blocking()?;
//!     assert_eq!(operation.results()?[0].bytes(), Some(&b"some bytes"[..]));
//!     Ok(())
//! }
//! # passive(&connector()?, |_| ())?;
//! # active(&connector()?, || String::new())?;
//! // The destructors of NIXL's libraries can crash at the end of a process.
//! exit_now(0);
//! # #[allow(unreachable_code)] Ok::<(), Box<dyn Error>>(())
//! ```
//!
//! # Async or not
//! What takes time is a value: [`Starting`] until NIXL has taken an operation, [`Completion`] until something has happened
//! to it. Each is awaited in a task of tokio (feature `tokio`, on by default), or waited for with `blocking()` in any
//! thread. Every wait has a deadline. The other calls that may fail with [`SessionError`] block for the milliseconds that
//! the agent's thread needs, and never longer than 30 s.
//!
//! # Trust
//! Over TCP and shared memory NIXL does not guard memory: a peer with an agent's metadata can reach the whole process of
//! that agent, also after memory was deregistered, until the process ends. Both ends of an operation are one trust domain.
//!
//! # Memory in pieces
//! [`RemoteMemory`] is the active side of an operation without as much memory of its own: it reads or writes what a peer
//! offers like a file, through a few slots, and tells the peer at the end. It stands on a [`Session`].
//!
//! # The staged stream
//! Below the operations stand a [`Session`], the agent and its thread, and above a session also [`Sender`] and
//! [`Receiver`]: chunks in order, each with a digest, through a ring of slots, for amounts that do not fit into memory.

#![warn(missing_docs, clippy::missing_errors_doc)]

mod connector;
mod descriptor;
mod device;
mod digest;
mod ending;
pub mod environment;
mod gpu;
mod library;
mod memory;
mod metadata;
mod operation;
mod remote;
mod session;
mod status;
mod stream;
mod waiting;

pub use connector::Connector;
pub use descriptor::{Descriptor, Locals};
pub use device::{Device, DeviceError};
pub use digest::{ContentHasher, chunk_digest};
pub use ending::exit_now;
pub use library::{Library, LibraryError, LibraryVersion, OLDEST_VERSION, UCX_PLUGIN_FILE};
pub use memory::{Arena, MAX_CHUNK_SIZE, MAX_RING_BYTES, MAX_SLOTS, MemoryError, Slot};
pub use metadata::{
    AgentMetadata, BlobError, CheckedMetadata, Connection, Encoding, MAX_AGENT_METADATA, MAX_DESCRIPTORS,
    MAX_NOTIFICATION_KEY, MemoryKind, MemorySection, MetadataError, OperationKind, RdmaMetadata, Region,
    SerializedDescriptor, decode_agent_metadata, encode_agent_metadata,
};
pub use operation::{
    ActiveOperation, Completion, ErrorClass, OperationError, PassiveOperation, ReadOperation,
    ReadableOperation, Refused, Startable, Starting, WritableOperation, WriteOperation,
};
pub use remote::{RemoteError, RemoteMemory, Staging};
pub use session::{Session, SessionError, SessionStatistics};
pub use status::OperationStatus;
pub use stream::{
    AnswerReceiver, AnswerSender, Chunk, MAX_ANSWER, MAX_RESENDS, Progress, ProgressSnapshot, Receiver,
    Sender, SlotMut, StreamError,
};
pub use waiting::AbortHandle;

// Some examples of both texts await, and are compiled when that is possible.
/// The guide.
#[cfg_attr(any(not(doctest), feature = "tokio"), doc = include_str!("../GUIDE.md"))]
pub mod guide {}

#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;
