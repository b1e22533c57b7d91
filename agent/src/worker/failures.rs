//! What goes wrong in a worker, as reasons of the closed list with words that say what to do. Pure.

use std::io;
use std::time::Duration;

use nixl_connect::{MetadataError, StreamError};
use nixl_transfer_crds::Reason;
use rustix::io::Errno;

use crate::protocol::Failure;

/// Most bytes of metadata that one side may publish.
pub(super) const MAX_METADATA: usize = 256 * 1024;

/// The stream failed while bytes moved, or should have.
pub(super) fn stream(error: &StreamError, patience: Duration) -> Failure {
    let reason = match error {
        StreamError::PeerLost { .. } => Reason::PeerLost,
        StreamError::DeadlineExceeded(what) => {
            let message = format!(
                "no chunk moved for {} s, waiting for {what}; look at both nodes and the network between them",
                patience.as_secs()
            );
            return Failure::new(Reason::ProgressDeadlineExceeded, message);
        }
        StreamError::Integrity { .. } | StreamError::Malformed(_) => Reason::IntegrityError,
        // An error of the backend with a peer that was there before: the peer is the likeliest to be gone.
        StreamError::Session(_) => Reason::PeerLost,
        StreamError::Closed | StreamError::Misuse(_) => Reason::WorkerLost,
    };
    Failure::new(reason, error.to_string())
}

/// A stream could not be opened: its measures, or memory.
pub(super) fn opening(error: &StreamError) -> Failure {
    let reason = match error {
        StreamError::Misuse(_) | StreamError::Malformed(_) => Reason::InvalidSpec,
        StreamError::Session(_) => Reason::InsufficientStagingMemory,
        _ => Reason::WorkerLost,
    };
    Failure::new(reason, format!("the stream's memory cannot be set up: {error}"))
}

/// The other side was refused, or could not be reached.
pub(super) fn connecting(error: &StreamError) -> Failure {
    let reason = match error {
        StreamError::Malformed(_) => Reason::MetadataRejected,
        StreamError::PeerLost { .. } | StreamError::Session(_) | StreamError::DeadlineExceeded(_) => {
            Reason::PeerLost
        }
        _ => Reason::WorkerLost,
    };
    Failure::new(reason, format!("the other side cannot be connected: {error}"))
}

/// Metadata of the other side cannot be read.
pub(super) fn metadata(error: &MetadataError) -> Failure {
    let reason = match error {
        MetadataError::TooLong { .. } | MetadataError::Inflated => Reason::MetadataTooLarge,
        MetadataError::Agent { .. } | MetadataError::NoConnection(_) | MetadataError::Unregistered(_) => {
            Reason::MetadataRejected
        }
        _ => Reason::MetadataMalformed,
    };
    Failure::new(reason, error.to_string())
}

/// Metadata that is longer than anything either side publishes.
pub(super) fn metadata_length(length: usize) -> Result<(), Failure> {
    if length <= MAX_METADATA {
        return Ok(());
    }
    let message =
        format!("the other side's metadata has {length} bytes, more than {MAX_METADATA}; lower inFlight");
    Err(Failure::new(Reason::MetadataTooLarge, message))
}

/// Metadata of another worker than the task's.
pub(super) fn other_worker(expected: &str, found: &str) -> Failure {
    let message = format!("the metadata is that of {found:?}, the task names {expected:?}");
    Failure::new(Reason::MetadataRejected, message)
}

/// A call on a file failed. `size` is what the whole file needs.
pub(super) fn file(doing: &str, path: &str, size: u64, errno: Errno) -> Failure {
    match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => {
            let what = if errno == Errno::NOSPC {
                "the file system is full"
            } else if errno == Errno::DQUOT {
                "the quota is used up"
            } else {
                "the file system takes no file of that size"
            };
            let message =
                format!("{doing} {path}: {what}; the file needs {size} bytes: free space on the volume");
            Failure::new(Reason::InsufficientSpace, message)
        }
        _ => Failure::new(Reason::IoError, format!("{doing} {path}: {}", io::Error::from(errno))),
    }
}

/// A source file is not what it was.
pub(super) fn changed(path: &str, how: &str) -> Failure {
    let message = format!("{path} changed while it was read ({how}); let its writer finish first");
    Failure::new(Reason::SourceChanged, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_of_streams_and_files() {
        let patience = Duration::from_secs(7);
        let lost = StreamError::PeerLost { peer: "p".into(), reason: "r".into() };
        for (error, moving, at_connect) in [
            (lost, Reason::PeerLost, Reason::PeerLost),
            (StreamError::DeadlineExceeded("a slot"), Reason::ProgressDeadlineExceeded, Reason::PeerLost),
            (StreamError::Integrity { sequence: 1, attempts: 4 }, Reason::IntegrityError, Reason::WorkerLost),
            (StreamError::Malformed("m".into()), Reason::IntegrityError, Reason::MetadataRejected),
        ] {
            assert_eq!(stream(&error, patience).reason, moving, "{error}");
            assert_eq!(connecting(&error).reason, at_connect, "{error}");
        }
        assert!(stream(&StreamError::DeadlineExceeded("a slot"), patience).message.contains("7 s"));
        for (errno, reason) in [
            (Errno::NOSPC, Reason::InsufficientSpace),
            (Errno::DQUOT, Reason::InsufficientSpace),
            (Errno::FBIG, Reason::InsufficientSpace),
            (Errno::IO, Reason::IoError),
        ] {
            let failure = file("writing", "a/b", 77, errno);
            assert_eq!(failure.reason, reason);
            assert!(failure.message.contains("a/b"));
        }
        assert!(file("writing", "a", 77, Errno::NOSPC).message.contains("77 bytes"));
    }

    #[test]
    fn long_metadata_is_refused() {
        assert!(metadata_length(MAX_METADATA).is_ok());
        assert_eq!(metadata_length(MAX_METADATA + 1).map_err(|f| f.reason), Err(Reason::MetadataTooLarge));
    }
}
