//! Agent metadata that has passed every check: the only form in which a session takes a peer's. No I/O.

use super::codec::decode_agent_metadata;
use super::{AgentMetadata, MetadataError, UCX};

/// A peer's agent metadata, parsed, bounded, with the expected name and a UCX connection.
///
/// The connection's own bytes cannot be checked here (they are UCX's); zlib's checksum guards them against accident.
/// Against malice nothing does, which is why a session runs in a worker process that holds nothing worth stealing.
#[derive(Clone, PartialEq, Eq)]
pub struct CheckedMetadata {
    parsed: AgentMetadata,
}

impl CheckedMetadata {
    /// Reads the text form (`b64:…` or hexadecimal) and checks it. With `expected_agent`, the name must be that one.
    ///
    /// # Errors
    /// The first thing that is wrong: with the text, with NIXL's own format (`Blob`, with the offset), `Agent` for another
    /// name, `NoConnection` for an agent without UCX.
    pub fn decode(text: &str, expected_agent: Option<&str>) -> Result<Self, MetadataError> {
        Self::from_bytes(&decode_agent_metadata(text)?, expected_agent)
    }

    /// As [`CheckedMetadata::decode`], from the inflated bytes: what `get_agent_metadata()` gives in Python.
    ///
    /// # Errors
    /// As [`CheckedMetadata::decode`].
    pub fn from_bytes(bytes: &[u8], expected_agent: Option<&str>) -> Result<Self, MetadataError> {
        let parsed = AgentMetadata::parse(bytes)?;
        if let Some(expected) = expected_agent.filter(|expected| *expected != parsed.agent) {
            return Err(MetadataError::Agent { expected: expected.to_owned(), found: parsed.agent });
        }
        if !parsed.reaches(UCX) {
            return Err(MetadataError::NoConnection(parsed.agent));
        }
        Ok(Self { parsed })
    }

    /// The peer's agent name.
    pub fn agent(&self) -> &str {
        &self.parsed.agent
    }

    /// What was parsed.
    pub fn parsed(&self) -> &AgentMetadata {
        &self.parsed
    }

    /// Whether the peer has registered all of this memory with UCX.
    pub(crate) fn holds(&self, memory: &super::SerializedDescriptor) -> bool {
        self.parsed.holds(UCX, memory)
    }
}

/// A capability: shown by name only.
impl std::fmt::Debug for CheckedMetadata {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CheckedMetadata").field("agent", &self.parsed.agent).finish_non_exhaustive()
    }
}
