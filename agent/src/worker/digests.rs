//! The digests of the regular files of a manifest, in its order: dense, since there can be millions. Pure.

use nixl_transfer_crds::Algorithm;

use crate::digest;

/// Digests by place in the manifest.
#[derive(Debug)]
pub(super) struct Digests {
    length: usize,
    indices: Vec<u32>,
    bytes: Vec<u8>,
}

impl Digests {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        Self { length: digest::length(algorithm), indices: Vec::new(), bytes: Vec::new() }
    }

    /// Keeps the digest of the file `index`, which comes after all before it.
    pub(super) fn push(&mut self, index: u32, digest: &[u8]) {
        debug_assert!(digest.len() == self.length && self.indices.last().is_none_or(|last| *last < index));
        self.indices.push(index);
        self.bytes.extend_from_slice(digest);
    }

    pub(super) fn get(&self, index: u32) -> Option<&[u8]> {
        let place = self.indices.binary_search(&index).ok()?;
        self.bytes.get(place * self.length..(place + 1) * self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_kept() {
        let mut digests = Digests::new(Algorithm::Crc64Nvme);
        digests.push(1, &[1; 8]);
        digests.push(4, &[4; 8]);
        assert_eq!(digests.get(4), Some(&[4; 8][..]));
        assert_eq!(digests.get(1), Some(&[1; 8][..]));
        assert_eq!(digests.get(2), None);
    }
}
