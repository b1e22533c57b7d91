//! Metadata between the two sides, checked before any worker sees it: size, form, kind, and that it is of the worker
//! that the status names. Pure; NIXL itself is never asked.

use nixl_connect::{CheckedMetadata, MetadataError, OperationKind, RdmaMetadata};
use nixl_transfer_crds::Reason;

use crate::protocol::Failure;

/// Bytes that a status may carry for one side.
const MAX_PUBLISHED: usize = 256 << 10;

/// What a worker wants published, if it fits.
pub fn bounded(metadata: String) -> Result<String, Failure> {
    if metadata.len() > MAX_PUBLISHED {
        return Err(Failure::new(
            Reason::MetadataTooLarge,
            format!(
                "the metadata of this side has {} bytes, more than the {MAX_PUBLISHED} that a status carries; lower \
                 spec.transport.inFlight",
                metadata.len()
            ),
        ));
    }
    Ok(metadata)
}

/// Checks a target's RdmaMetadata: well formed, written by that worker, and to be written to.
pub fn check_rdma(text: &str, worker: &str) -> Result<(), Failure> {
    let metadata = RdmaMetadata::parse(text).map_err(|error| failure("rdmaMetadata", error))?;
    if metadata.operation_kind() != OperationKind::Write {
        return Err(Failure::new(
            Reason::MetadataRejected,
            "rdmaMetadata: operation_kind is 1 (READ), and this side writes (2)",
        ));
    }
    same_worker("rdmaMetadata", metadata.agent().agent(), worker)
}

/// Checks a source's agent metadata: well formed and of that worker.
pub fn check_agent(text: &str, worker: &str) -> Result<(), Failure> {
    let metadata = CheckedMetadata::decode(text, None).map_err(|error| failure("agentMetadata", error))?;
    same_worker("agentMetadata", metadata.agent(), worker)
}

fn same_worker(field: &str, found: &str, expected: &str) -> Result<(), Failure> {
    if found == expected {
        return Ok(());
    }
    Err(Failure::new(
        Reason::MetadataRejected,
        format!("{field} is of the NIXL agent {found:?}, and the status names the worker {expected:?}"),
    ))
}

fn failure(field: &str, error: MetadataError) -> Failure {
    Failure::new(Reason::MetadataMalformed, format!("{field}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nixl_connect::{
        AgentMetadata, Connection, Device, Encoding, MemoryKind, MemorySection, Region, SerializedDescriptor,
        encode_agent_metadata,
    };

    const PLACE: (u64, u64) = (0x1000, 4096);

    fn agent(name: &str) -> String {
        let region = Region { address: PLACE.0, length: PLACE.1, device: 0, key: vec![1] };
        let metadata = AgentMetadata {
            agent: name.into(),
            connections: vec![Connection { backend: "UCX".into(), address: vec![7] }],
            sections: vec![MemorySection {
                backend: "UCX".into(),
                kind: MemoryKind::Dram,
                regions: vec![region],
            }],
        };
        encode_agent_metadata(&metadata.to_bytes(), Encoding::Base64).unwrap()
    }

    fn rdma(name: &str, kind: OperationKind) -> String {
        let descriptor = SerializedDescriptor { device: Device::Cpu, ptr: PLACE.0, size: PLACE.1 };
        RdmaMetadata::new(vec![descriptor], agent(name), "key".into(), kind).unwrap().to_json()
    }

    fn reason(result: Result<(), Failure>) -> Option<Reason> {
        result.err().map(|failure| failure.reason)
    }

    #[test]
    fn sound_metadata_of_another_worker_or_to_be_read_from_is_refused() {
        assert_eq!(reason(check_agent(&agent("w"), "w")), None);
        assert_eq!(reason(check_agent(&agent("w"), "x")), Some(Reason::MetadataRejected));
        assert_eq!(reason(check_agent("{}", "w")), Some(Reason::MetadataMalformed));
        let (read, write) = (rdma("w", OperationKind::Read), rdma("w", OperationKind::Write));
        assert_eq!(reason(check_rdma(&write, "w")), None);
        assert_eq!(reason(check_rdma(&write, "x")), Some(Reason::MetadataRejected));
        assert_eq!(reason(check_rdma(&read, "w")), Some(Reason::MetadataRejected));
        assert_eq!(reason(check_rdma("{}", "w")), Some(Reason::MetadataMalformed));
    }

    #[test]
    fn what_a_status_cannot_carry_is_not_published() {
        assert!(bounded("m".repeat(MAX_PUBLISHED)).is_ok());
        let refused = bounded("m".repeat(MAX_PUBLISHED + 1)).map(drop);
        assert_eq!(reason(refused), Some(Reason::MetadataTooLarge));
    }
}
