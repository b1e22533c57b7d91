//! A digest as it stands in a status: `<algorithm>:<lower-case hex>`. Only the text form; the agent computes. Pure.

use std::{fmt, str::FromStr};

use crate::policy::Algorithm;

/// The digest of a file's content or of a tree's manifest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContentDigest {
    /// How it was computed.
    pub algorithm: Algorithm,
    /// The digest's bytes, most significant first: 16 for XXH3, 8 for CRC64NVME, 32 for BLAKE3.
    pub bytes: Vec<u8>,
}

/// How an algorithm is written before a digest, and how many bytes its digest has.
const WRITTEN: [(Algorithm, &str, usize); 3] = [
    (Algorithm::Xxh3, "xxh3", 16),
    (Algorithm::Crc64Nvme, "crc64nvme", 8),
    (Algorithm::Blake3, "blake3", 32),
];

/// A text that is no digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no digest such as xxh3:… with 32 lower-case hexadecimal digits")]
pub struct DigestError;

impl FromStr for ContentDigest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (name, hex) = text.split_once(':').ok_or(DigestError)?;
        let found =
            WRITTEN.into_iter().find(|(_, written, length)| *written == name && hex.len() == 2 * length);
        let (algorithm, _, length) = found.ok_or(DigestError)?;
        if !hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            return Err(DigestError);
        }
        let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).map_err(|_| DigestError);
        Ok(Self { algorithm, bytes: (0..length).map(byte).collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = WRITTEN.iter().find(|(algorithm, ..)| *algorithm == self.algorithm);
        write!(f, "{}:", written.map_or("", |(_, name, _)| name))?;
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_nothing_else_does() {
        for (algorithm, _, length) in WRITTEN {
            let digest = ContentDigest { algorithm, bytes: (0..length).map(|at| at as u8 * 7).collect() };
            assert_eq!(digest.to_string().parse(), Ok(digest));
        }
        for text in [
            "",
            "xxh3",
            "xxh3:",
            "xxh3:00",
            "md5:00000000000000000000000000000000",
            "crc64nvme:00000000000000G0",
            "crc64nvme:é0000000000000",
        ] {
            assert_eq!(text.parse::<ContentDigest>(), Err(DigestError), "{text}");
        }
    }
}
