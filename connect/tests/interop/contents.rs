//! What memory holds before an operation and must hold after it. Pure.

use sha2::{Digest, Sha256};

/// The byte at a place of the concatenation of a source's memory, in `peer.rs`, `peer.py` and here.
pub fn byte(place: u64) -> u8 {
    (place.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

pub fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    parts.into_iter().for_each(|part| hasher.update(part));
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The sum over a source's memory of so many bytes in all.
pub fn patterned(length: u64) -> String {
    let bytes: Vec<u8> = (0..length).map(byte).collect();
    sha256([bytes.as_slice()])
}

/// The sum over memory that holds one value.
pub fn filled(value: u8, length: usize) -> String {
    sha256([vec![value; length].as_slice()])
}
