//! The digests that prove a file's content, computed piece by piece. Pure.

use nixl_connect::ContentHasher;
use nixl_transfer_crds::{Algorithm, ContentDigest};

/// A digest in the making.
pub struct Hasher(Kind);

enum Kind {
    Xxh3(ContentHasher),
    // Boxed: their states are 300 bytes and more, and are moved about with what holds them.
    Crc64Nvme(Box<crc_fast::Digest>),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    /// Nothing digested yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Xxh3 => Kind::Xxh3(ContentHasher::new()),
            Algorithm::Crc64Nvme => {
                Kind::Crc64Nvme(Box::new(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme)))
            }
            Algorithm::Blake3 => Kind::Blake3(Box::default()),
        })
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Kind::Xxh3(state) => state.update(bytes),
            Kind::Crc64Nvme(state) => state.update(bytes),
            Kind::Blake3(state) => {
                state.update(bytes);
            }
        }
    }

    /// The digest, most significant byte first, as [`ContentDigest`] has it.
    pub fn finish(&self) -> Vec<u8> {
        match &self.0 {
            Kind::Xxh3(state) => state.digest().to_be_bytes().to_vec(),
            Kind::Crc64Nvme(state) => state.finalize().to_be_bytes().to_vec(),
            Kind::Blake3(state) => state.finalize().as_bytes().to_vec(),
        }
    }
}

/// Bytes of a digest.
pub fn length(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::Xxh3 => 16,
        Algorithm::Crc64Nvme => 8,
        Algorithm::Blake3 => 32,
    }
}

/// The digest of bytes that are at hand.
pub fn of(algorithm: Algorithm, bytes: &[u8]) -> ContentDigest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    ContentDigest { algorithm, bytes: hasher.finish() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Algorithm; 3] = [Algorithm::Xxh3, Algorithm::Crc64Nvme, Algorithm::Blake3];

    /// The published check values of each algorithm, so that other tools agree with a status.
    #[test]
    fn known_values() {
        let text = |algorithm, bytes: &[u8]| of(algorithm, bytes).to_string();
        assert_eq!(text(Algorithm::Xxh3, b""), "xxh3:99aa06d3014798d86001c324468d497f");
        assert_eq!(text(Algorithm::Crc64Nvme, b"123456789"), "crc64nvme:ae8b14860a799888");
        assert_eq!(
            text(Algorithm::Blake3, b""),
            "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(bytes in prop::collection::vec(any::<u8>(), 0..5000), cut in 0_usize..5000) {
            let cut = cut.min(bytes.len());
            for algorithm in ALL {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(&bytes[..cut]);
                hasher.update(&bytes[cut..]);
                let whole = of(algorithm, &bytes);
                prop_assert_eq!(hasher.finish(), whole.bytes.clone());
                prop_assert_eq!(whole.bytes.len(), length(algorithm));
            }
        }
    }
}
