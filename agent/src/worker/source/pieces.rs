//! Reads memory that no descriptor maps into the stream's slots: from its first byte to its last, whatever the target has of
//! it, since nobody could say without reading that it is the same.

use nixl_transfer_crds::{Algorithm, Reason};

use super::super::hop::Stop;
use super::super::pieces::Pieces;
use super::packer::Packer;
use crate::digest::Hasher;
use crate::protocol::Failure;

/// Sends all of it, and gives its digest. `expected` is what the workload says that is.
pub(super) fn send(
    memory: &mut Pieces,
    (index, size): (u32, u64),
    algorithm: Algorithm,
    expected: Option<&[u8]>,
    packer: &mut Packer,
    mut moved: impl FnMut(u64, u64) -> Result<(), Stop>,
) -> Result<Vec<u8>, Stop> {
    // What a workload exposes serves as a whole; of another's memory the content may be a part.
    let fits = match memory {
        Pieces::External(external) => external.bytes() == size,
        Pieces::Device(device) => device.bytes() >= size,
    };
    if !fits {
        let message = format!("the memory has {} bytes, the manifest says {size}", memory.bytes());
        return Err(Failure::new(Reason::LengthMismatch, message).into());
    }
    let mut hasher = Hasher::new(algorithm);
    let mut offset = 0;
    while offset < size {
        let left = size - offset;
        let mut frames = packer.piece(left)?;
        let place = frames.data_place();
        let length = place.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let piece = &mut place[..length];
        memory.read(offset, piece)?;
        hasher.update(piece);
        frames.data_in_place(index, offset, length);
        let position = frames.position();
        packer.written_to(position)?;
        offset += length as u64;
        moved(length as u64, packer.resent())?;
    }
    let digest = hasher.finish();
    if expected.is_some_and(|expected| expected != digest) {
        let message =
            "the workload's memory has another digest than `spec.external.digest` of its MemoryRegion";
        return Err(Failure::new(Reason::IntegrityError, message).into());
    }
    packer.write(|frames| frames.file_end(index, size, &digest))?;
    Ok(digest)
}
