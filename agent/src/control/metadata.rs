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
