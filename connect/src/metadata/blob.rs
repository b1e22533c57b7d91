//! NIXL's serialized agent metadata: a full parser with bounds, because NIXL's own dies on damaged input, and the exact
//! inverse. What stands inside a connection or a region's key belongs to the backend and is kept as bytes. No I/O.

use super::reader::{BlobError, Reader};
use super::{MAX_AGENT_METADATA, MetadataError, SerializedDescriptor, UCX};

const MAGIC: &[u8] = b"nixlSerDes|";
const LIST: &[u8] = b"nixlSDList";
const SECTIONS: &[u8] = b"MemSection";
const MAX_AGENT_NAME: usize = 256;
const MAX_BACKEND_NAME: usize = 64;
const MAX_CONNECTIONS: usize = 64;
const MAX_SECTIONS: usize = 256;
/// The smallest region takes 34 bytes, so this bound is reached by nothing that fits into the bound on the whole.
const MAX_REGIONS: usize = 65_536;
/// Address, length and device of a region, before the backend's part.
const REGION_NUMBERS: usize = 24;

/// What one NIXL agent tells others: who it is, how it is reached, which memory it has registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentMetadata {
    /// The agent's name, unique per worker.
    pub agent: String,
    /// One per backend.
    pub connections: Vec<Connection>,
    /// Registered memory, one section per backend and kind of memory.
    pub sections: Vec<MemorySection>,
}

/// How an agent is reached over one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The backend, such as `UCX`.
    pub backend: String,
    /// The backend's own address bytes, not interpreted.
    pub address: Vec<u8>,
}

/// Memory registered with one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemorySection {
    /// The backend, such as `UCX`.
    pub backend: String,
    /// The kind of memory.
    pub kind: MemoryKind,
    /// The registered ranges.
    pub regions: Vec<Region>,
}

/// NIXL's kinds of memory, with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MemoryKind {
    /// Host memory.
    Dram = 0,
    /// GPU memory.
    Vram = 1,
    /// A block device.
    Block = 2,
    /// An object store.
    Object = 3,
    /// A file.
    File = 4,
}

/// One registered range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// First byte, in the owner's address space (for files and objects an offset).
    pub address: u64,
    /// Length in bytes; `address + length` does not overflow.
    pub length: u64,
    /// The device's number at its owner.
    pub device: u64,
    /// The backend's key for the range, not interpreted.
    pub key: Vec<u8>,
}

impl Region {
    /// Whether all of the range lies in it, on the same device.
    fn holds(&self, range: &SerializedDescriptor) -> bool {
        let end = range.ptr.checked_add(range.size);
        self.device == range.device.index()
            && self.address <= range.ptr
            && end.is_some_and(|end| end <= self.address.saturating_add(self.length))
    }
}

impl AgentMetadata {
    /// Parses the inflated bytes.
    ///
    /// # Errors
    /// The first damage, with its offset and field.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetadataError> {
        if bytes.len() > MAX_AGENT_METADATA {
            return Err(MetadataError::TooLong { length: bytes.len(), limit: MAX_AGENT_METADATA });
        }
        let mut reader = Reader::new(bytes);
        reader.literal(MAGIC, "header")?;
        let agent = reader.name(b"Agent", "agent name", MAX_AGENT_NAME)?.to_owned();
        let connections = connections(&mut reader)?;
        reader.constant(b"", SECTIONS, "section header")?;
        let sections = sections(&mut reader)?;
        reader.end()?;
        Ok(Self { agent, connections, sections })
    }

    /// The bytes that [`AgentMetadata::parse`] reads: for a parsed value exactly those it was parsed from.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        record(&mut bytes, b"Agent", self.agent.as_bytes());
        record(&mut bytes, b"Conns", &(self.connections.len() as u64).to_le_bytes());
        for connection in &self.connections {
            record(&mut bytes, b"t", connection.backend.as_bytes());
            record(&mut bytes, b"c", &connection.address);
        }
        record(&mut bytes, b"", SECTIONS);
        record(&mut bytes, b"nixlSecElms", &(self.sections.len() as u64).to_le_bytes());
        for section in &self.sections {
            record(&mut bytes, b"bknd", section.backend.as_bytes());
            record(&mut bytes, b"nixlDList", LIST);
            record(&mut bytes, b"t", &(section.kind as u32).to_le_bytes());
            record(&mut bytes, b"n", &(section.regions.len() as u64).to_le_bytes());
            for region in &section.regions {
                let mut value = Vec::with_capacity(REGION_NUMBERS + region.key.len());
                for number in [region.address, region.length, region.device] {
                    value.extend_from_slice(&number.to_le_bytes());
                }
                value.extend_from_slice(&region.key);
                record(&mut bytes, b"", &value);
            }
        }
        bytes
    }

    /// Whether the agent has a connection for this backend.
    pub fn reaches(&self, backend: &str) -> bool {
        self.connections.iter().any(|connection| connection.backend == backend)
    }

    /// All memory that UCX reaches.
    pub(crate) fn ucx_sections(&self) -> Vec<MemorySection> {
        self.sections.iter().filter(|section| section.backend == UCX).cloned().collect()
    }

    /// The UCX sections with these ranges only, each once and with the key of the region that holds it, in the order in
    /// which NIXL sorts them.
    pub(crate) fn covering(&self, ranges: &[SerializedDescriptor]) -> Vec<MemorySection> {
        let mut sections: Vec<MemorySection> = Vec::new();
        for section in self.sections.iter().filter(|section| section.backend == UCX) {
            let of_kind = ranges.iter().filter(|range| range.device.memory_kind() == section.kind);
            let mut regions: Vec<Region> = of_kind
                .filter_map(|range| {
                    let holder = section.regions.iter().find(|region| region.holds(range))?;
                    Some(Region { address: range.ptr, length: range.size, ..holder.clone() })
                })
                .collect();
            regions.sort_unstable_by_key(|region| (region.device, region.address, region.length));
            regions.dedup();
            if !regions.is_empty() {
                sections.push(MemorySection { regions, ..section.clone() });
            }
        }
        sections
    }

    /// Whether one range that is registered with this backend holds all of that memory, on the same device.
    pub fn holds(&self, backend: &str, memory: &SerializedDescriptor) -> bool {
        let mut regions = self
            .sections
            .iter()
            .filter(|section| section.backend == backend && section.kind == memory.device.memory_kind())
            .flat_map(|section| &section.regions);
        regions.any(|region| region.holds(memory))
    }
}

fn connections(reader: &mut Reader<'_>) -> Result<Vec<Connection>, BlobError> {
    let count = reader.count(b"Conns", "connection count", MAX_CONNECTIONS)?;
    let mut connections: Vec<Connection> = Vec::new();
    for _ in 0..count {
        let backend = reader.name(b"t", "connection backend", MAX_BACKEND_NAME)?;
        if connections.iter().any(|known| known.backend == backend) {
            return Err(reader.error("connection backend", "stands here twice"));
        }
        let address = reader.record(b"c", "connection address", MAX_AGENT_METADATA)?;
        connections.push(Connection { backend: backend.to_owned(), address: address.to_vec() });
    }
    Ok(connections)
}

fn sections(reader: &mut Reader<'_>) -> Result<Vec<MemorySection>, BlobError> {
    let count = reader.count(b"nixlSecElms", "section count", MAX_SECTIONS)?;
    let mut sections = Vec::new();
    for _ in 0..count {
        let backend = reader.name(b"bknd", "section backend", MAX_BACKEND_NAME)?.to_owned();
        reader.constant(b"nixlDList", LIST, "list type")?;
        let kind = kind(reader)?;
        let regions = reader.count(b"n", "region count", MAX_REGIONS)?;
        let regions = (0..regions).map(|_| region(reader, kind)).collect::<Result<_, _>>()?;
        sections.push(MemorySection { backend, kind, regions });
    }
    Ok(sections)
}

fn kind(reader: &mut Reader<'_>) -> Result<MemoryKind, BlobError> {
    const FIELD: &str = "memory kind";
    let value = reader.record(b"t", FIELD, 4)?;
    match <[u8; 4]>::try_from(value).map(u32::from_le_bytes) {
        Ok(0) => Ok(MemoryKind::Dram),
        Ok(1) => Ok(MemoryKind::Vram),
        Ok(2) => Ok(MemoryKind::Block),
        Ok(3) => Ok(MemoryKind::Object),
        Ok(4) => Ok(MemoryKind::File),
        _ => Err(reader.error(FIELD, "is none that NIXL has")),
    }
}

fn region(reader: &mut Reader<'_>, kind: MemoryKind) -> Result<Region, BlobError> {
    const FIELD: &str = "region";
    let value = reader.record(b"", FIELD, MAX_AGENT_METADATA)?;
    let (numbers, key) =
        value.split_at_checked(REGION_NUMBERS).ok_or_else(|| reader.error(FIELD, "is too short"))?;
    let number = |at: usize| {
        numbers.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |n| u64::from_le_bytes(*n))
    };
    let region = Region { address: number(0), length: number(8), device: number(16), key: key.to_vec() };
    if region.address.checked_add(region.length).is_none() {
        return Err(reader.error(FIELD, "address + length overflows"));
    }
    if matches!(kind, MemoryKind::Dram | MemoryKind::Vram) && (region.address == 0 || region.length == 0) {
        return Err(reader.error(FIELD, "memory at address 0 or of length 0"));
    }
    Ok(region)
}

fn record(bytes: &mut Vec<u8>, tag: &[u8], value: &[u8]) {
    bytes.extend_from_slice(tag);
    bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    bytes.extend_from_slice(value);
    bytes.push(b'|');
}
