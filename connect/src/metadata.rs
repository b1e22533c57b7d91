//! What two ends tell each other before bytes move: `RdmaMetadata` (the wire object of `nixl_connect`), and inside it
//! NIXL's serialized agent metadata. All of it is parsed and bounded here before NIXL may see it. No I/O.

mod blob;
mod checked;
mod codec;
mod rdma;
mod reader;
mod serialized;

pub use blob::{AgentMetadata, Connection, MemoryKind, MemorySection, Region};
pub use checked::CheckedMetadata;
pub use codec::{Encoding, decode_agent_metadata, encode_agent_metadata};
pub use rdma::{OperationKind, RdmaMetadata};
pub use reader::BlobError;
pub use serialized::SerializedDescriptor;

/// Most bytes that agent metadata may have when inflated. A real one with thousands of regions has 240 KB.
pub const MAX_AGENT_METADATA: usize = 1024 * 1024;
/// Most descriptors in one `RdmaMetadata`.
pub const MAX_DESCRIPTORS: usize = 4096;
/// Longest notification key, in bytes.
pub const MAX_NOTIFICATION_KEY: usize = 256;

/// The backend by which peers are reached.
const UCX: &str = "UCX";

/// Why metadata of a peer is refused. Every one of these is final: the same text will be refused again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Longer than anything valid can be.
    #[error("the metadata has {length} bytes, more than {limit}")]
    TooLong {
        /// Its length.
        length: usize,
        /// The bound.
        limit: usize,
    },
    /// Not the JSON object of `nixl_connect`.
    #[error("not an RdmaMetadata object: {0}")]
    Json(String),
    /// `descriptors` is empty or too long.
    #[error("{0} descriptors; 1 to {MAX_DESCRIPTORS} are possible")]
    DescriptorCount(usize),
    /// A descriptor's numbers make no sense.
    #[error("descriptors[{index}]: {fault}")]
    Descriptor {
        /// Place in the list, from 0.
        index: usize,
        /// What is wrong.
        fault: &'static str,
    },
    /// `notification_key` is empty or too long.
    #[error("notification_key has {0} bytes; 1 to {MAX_NOTIFICATION_KEY} are possible")]
    NotificationKey(usize),
    /// `operation_kind` is neither 1 (READ) nor 2 (WRITE).
    #[error("operation_kind {0} is neither 1 (READ) nor 2 (WRITE)")]
    OperationKind(i64),
    /// `nixl_metadata` is empty.
    #[error("nixl_metadata is empty")]
    Empty,
    /// The text after `b64:` is not padded standard base64.
    #[error("nixl_metadata is not base64")]
    Base64,
    /// Without `b64:` the text must be hexadecimal.
    #[error("nixl_metadata has no b64: prefix and is not hexadecimal")]
    Hex,
    /// The decoded bytes are not one whole zlib stream.
    #[error("nixl_metadata is not one whole zlib stream: {0}")]
    Zlib(String),
    /// It inflates beyond [`MAX_AGENT_METADATA`].
    #[error("nixl_metadata inflates to more than {MAX_AGENT_METADATA} bytes")]
    Inflated,
    /// NIXL's own format is damaged.
    #[error("damaged agent metadata: {0}")]
    Blob(#[from] BlobError),
    /// The metadata is another agent's.
    #[error("agent metadata of {found:?}, expected that of {expected:?}")]
    Agent {
        /// The name that was expected.
        expected: String,
        /// The name that stands in the metadata.
        found: String,
    },
    /// The agent cannot be reached over UCX.
    #[error("agent {0:?} has no UCX connection")]
    NoConnection(String),
    /// A descriptor names memory that the agent's metadata does not list.
    #[error("descriptors[{0}] lies in no memory that its agent has registered")]
    Unregistered(usize),
}

impl MetadataError {
    /// A name for programs that never changes: the variant's.
    pub fn name(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "TooLong",
            Self::Json(_) => "Json",
            Self::DescriptorCount(_) => "DescriptorCount",
            Self::Descriptor { .. } => "Descriptor",
            Self::NotificationKey(_) => "NotificationKey",
            Self::OperationKind(_) => "OperationKind",
            Self::Empty => "Empty",
            Self::Base64 => "Base64",
            Self::Hex => "Hex",
            Self::Zlib(_) => "Zlib",
            Self::Inflated => "Inflated",
            Self::Blob(_) => "Blob",
            Self::Agent { .. } => "Agent",
            Self::NoConnection(_) => "NoConnection",
            Self::Unregistered(_) => "Unregistered",
        }
    }
}
