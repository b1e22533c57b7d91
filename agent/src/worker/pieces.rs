//! Memory that no descriptor maps, as one end of a hop: a workload's, reached through NIXL, or a GPU's, reached by copies. Read
//! and written in pieces, and read back to prove what was written.

use nixl_transfer_crds::{Algorithm, Reason};

use super::device::Device;
use super::external::External;
use crate::digest::Hasher;
use crate::protocol::Failure;

/// Bytes that are read back at once.
const PIECE: usize = 1 << 20;

/// The memory, open.
#[derive(Debug)]
pub(super) enum Pieces {
    /// Of a workload that exposes it by itself.
    External(External),
    /// Of a GPU.
    Device(Device),
}

impl Pieces {
    /// Its length.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::External(external) => external.bytes(),
            Self::Device(device) => device.bytes(),
        }
    }

    /// Reads the bytes at `offset`.
    pub(super) fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        match self {
            Self::External(external) => external.read(offset, buffer),
            Self::Device(device) => device.read(offset, buffer),
        }
    }

    /// Writes the bytes at `offset`.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::External(external) => external.write(offset, bytes),
            Self::Device(device) => device.write(offset, bytes),
        }
    }

    /// Reads back the first `bytes`, and fails unless they have this digest. `each` is called after every piece.
    pub(super) fn prove(
        &mut self,
        bytes: u64,
        algorithm: Algorithm,
        digest: &[u8],
        mut each: impl FnMut(),
    ) -> Result<(), Failure> {
        let mut hasher = Hasher::new(algorithm);
        let mut buffer = vec![0; PIECE];
        let mut at = 0;
        while at < bytes {
            let length = usize::try_from(bytes - at).unwrap_or(PIECE).min(PIECE);
            let piece = &mut buffer[..length];
            match self {
                Self::External(external) => external.read_back(at, piece)?,
                Self::Device(device) => device.read(at, piece)?,
            }
            hasher.update(piece);
            at += length as u64;
            each();
        }
        if hasher.finish() == digest {
            return Ok(());
        }
        let whose = match self {
            Self::External(_) => "the workload's memory",
            Self::Device(_) => "the GPU's memory",
        };
        let message =
            format!("{whose} gives back other bytes than were written; nobody else may write it meanwhile");
        Err(Failure::new(Reason::IntegrityError, message))
    }

    /// The workload that must hear when all is well, if there is one.
    pub(super) fn into_external(self) -> Option<External> {
        match self {
            Self::External(external) => Some(external),
            Self::Device(_) => None,
        }
    }
}
