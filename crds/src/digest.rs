//! A digest as it stands in a status: `<algorithm>:<lower-case hex>`. Only the text form; the agent computes. Pure.

use std::fmt;

use crate::policy::Algorithm;

/// The digest of a file's content or of a tree's manifest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContentDigest {
    /// How it was computed.
    pub algorithm: Algorithm,
    /// The digest's bytes, most significant first: 16 for XXH3, 8 for CRC64NVME, 32 for BLAKE3.
    pub bytes: Vec<u8>,
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.algorithm {
            Algorithm::Xxh3 => "xxh3:",
            Algorithm::Crc64Nvme => "crc64nvme:",
            Algorithm::Blake3 => "blake3:",
        })?;
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
