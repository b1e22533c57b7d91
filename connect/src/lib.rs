//! nixl-connect: the one place that talks to NVIDIA NIXL. A [`Session`] owns a NIXL agent on one thread; above it
//! stands the staged stream ([`Sender`], [`Receiver`]). [`RdmaMetadata`] is wire-compatible with Dynamo's
//! `nixl_connect`. Nothing here knows of Kubernetes, of files, or of runs.

mod connector;
mod descriptor;
mod device;
mod digest;
mod ending;
pub mod environment;
mod library;
mod memory;
mod metadata;
mod operation;
mod session;
mod status;
mod stream;

pub use connector::Connector;
pub use descriptor::{Descriptor, Locals};
pub use device::{Device, DeviceError};
pub use digest::chunk_digest;
pub use ending::exit_now;
pub use library::{Library, LibraryError, LibraryVersion, OLDEST_VERSION, UCX_PLUGIN_FILE};
pub use memory::{Arena, MemoryError, Slot};
pub use metadata::{
    AgentMetadata, BlobError, CheckedMetadata, Connection, Encoding, MAX_AGENT_METADATA, MAX_DESCRIPTORS,
    MAX_NOTIFICATION_KEY, MemoryKind, MemorySection, MetadataError, OperationKind, RdmaMetadata, Region,
    SerializedDescriptor, decode_agent_metadata, encode_agent_metadata,
};
pub use operation::{
    ActiveOperation, Completion, ErrorClass, OperationError, PassiveOperation, ReadOperation,
    ReadableOperation, Refused, Startable, Starting, WritableOperation, WriteOperation,
};
pub use session::{Session, SessionError, SessionStatistics};
pub use status::OperationStatus;
pub use stream::{
    AbortHandle, Chunk, MAX_CHUNK_SIZE, MAX_RESENDS, MAX_RING_BYTES, MAX_SLOTS, Progress, ProgressSnapshot,
    Receiver, Sender, SlotMut, StreamError,
};
