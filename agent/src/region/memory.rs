//! What a region is made of: memory of the host or of a GPU that control holds, or the offer of a workload that exposes it
//! through NIXL by itself.

use std::sync::Arc;

use nixl_connect::{OperationKind, RdmaMetadata};
use nixl_transfer_crds::{Algorithm, ContentDigest, Reason};

use super::{GpuMemory, HostMemory, RegionKey};
use crate::protocol::Failure;

/// The memory of a region.
#[derive(Clone, Debug)]
pub enum Memory {
    /// Host memory.
    Host(Arc<HostMemory>),
    /// Memory of a GPU.
    Gpu(Arc<GpuMemory>),
    /// Memory that only a worker can reach.
    External(Arc<Offer>),
}

/// What a workload has written into `status.rdmaMetadata`, checked.
#[derive(Debug, PartialEq, Eq)]
pub struct Offer {
    /// The text, a capability.
    pub metadata: String,
    /// Digest of its notification key: which offer it is, and no secret.
    pub id: String,
    /// Bytes of all descriptors.
    pub bytes: u64,
    /// Where they are.
    pub device: String,
    /// Whether it is read from; else it is written to.
    pub is_read: bool,
    /// Digest of the content, as the workload says, with the algorithm.
    pub digest: Option<String>,
}

/// An offer, and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Offered<'a> {
    /// Namespace and name of the region.
    pub key: &'a RegionKey,
    /// Its UID.
    pub uid: &'a str,
    /// What the workload offers.
    pub offer: &'a Offer,
}

impl Offer {
    /// Checks what a workload has written.
    ///
    /// # Errors
    /// `MetadataMalformed` and `MetadataRejected`, with the place.
    pub fn parse(metadata: &str, digest: Option<&str>) -> Result<Self, Failure> {
        let field = "status.rdmaMetadata";
        let parsed = RdmaMetadata::parse(metadata).map_err(|error| {
            let remedy = "write what `metadata()` of a nixl_connect operation gives, as one JSON string";
            Failure::new(Reason::MetadataMalformed, format!("{field}: {error}; {remedy}"))
        })?;
        let descriptors = parsed.descriptors();
        let bytes = descriptors.iter().try_fold(0_u64, |sum, descriptor| sum.checked_add(descriptor.size));
        let bytes = bytes.ok_or_else(|| {
            Failure::new(Reason::MetadataRejected, format!("{field}: the sizes of its descriptors overflow"))
        })?;
        let mut devices: Vec<String> =
            descriptors.iter().map(|descriptor| descriptor.device.to_string()).collect();
        devices.dedup();
        Ok(Self {
            metadata: metadata.to_owned(),
            id: blake3::hash(parsed.notification_key().as_bytes()).to_hex().to_string(),
            bytes,
            device: devices.into_iter().next().unwrap_or_default(),
            is_read: parsed.operation_kind() == OperationKind::Read,
            digest: digest.map(str::to_owned),
        })
    }
}

impl Offer {
    /// The digest that the workload says its memory has, if it says one, by this algorithm.
    ///
    /// # Errors
    /// `InvalidSpec` when it is of another algorithm, or no digest.
    pub fn expected(&self, algorithm: Algorithm) -> Result<Option<Vec<u8>>, Failure> {
        let Some(said) = &self.digest else { return Ok(None) };
        match said.parse::<ContentDigest>() {
            Ok(digest) if digest.algorithm == algorithm => Ok(Some(digest.bytes)),
            _ => {
                let message = format!(
                    "spec.external.digest of the MemoryRegion is {said:?}, and the job digests with {algorithm:?}: give a digest of \
                     that algorithm, or change spec.integrity.algorithm"
                );
                Err(Failure::new(Reason::InvalidSpec, message))
            }
        }
    }
}

impl Memory {
    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Host(memory) => memory.bytes(),
            Self::Gpu(memory) => memory.bytes(),
            Self::External(offer) => offer.bytes,
        }
    }

    /// Where it is, as a status says it.
    pub fn device(&self) -> &str {
        match self {
            Self::Host(_) => "cpu",
            Self::Gpu(memory) => memory.device(),
            Self::External(offer) => &offer.device,
        }
    }

    /// Host memory, if it is that.
    ///
    /// # Errors
    /// `IoError`.
    pub fn host(&self) -> Result<&HostMemory, Failure> {
        match self {
            Self::Host(memory) => Ok(memory),
            Self::Gpu(_) | Self::External(_) => {
                Err(Failure::new(Reason::IoError, "the memory cannot be opened as a file"))
            }
        }
    }

    /// Whether transfers can write into it, as far as is known.
    pub fn is_writable(&self) -> bool {
        match self {
            Self::Host(memory) => memory.is_writable(),
            Self::Gpu(_) => true,
            Self::External(offer) => !offer.is_read,
        }
    }

    /// Memory of a GPU, if it is that.
    pub fn gpu(&self) -> Option<&GpuMemory> {
        match self {
            Self::Gpu(memory) => Some(memory),
            Self::Host(_) | Self::External(_) => None,
        }
    }

    /// The offer of a workload, if it is that.
    pub fn offer(&self) -> Option<&Arc<Offer>> {
        match self {
            Self::External(offer) => Some(offer),
            Self::Host(_) | Self::Gpu(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_of_another_algorithm_or_none_is_refused() {
        let offer = |digest: Option<&str>| Offer {
            metadata: String::new(),
            id: String::new(),
            bytes: 1,
            device: "cpu".into(),
            is_read: true,
            digest: digest.map(str::to_owned),
        };
        let crc = "crc64nvme:00112233445566ff";
        assert_eq!(offer(None).expected(Algorithm::Xxh3), Ok(None));
        assert_eq!(
            offer(Some(crc)).expected(Algorithm::Crc64Nvme),
            Ok(Some(vec![0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0xff]))
        );
        for (said, algorithm) in
            [(crc, Algorithm::Xxh3), ("xxh3:00", Algorithm::Xxh3), ("", Algorithm::Blake3)]
        {
            let refusal = offer(Some(said)).expected(algorithm).unwrap_err();
            assert_eq!(refusal.reason, Reason::InvalidSpec);
            assert!(refusal.message.contains("spec.external.digest"), "{}", refusal.message);
        }
    }

    #[test]
    fn what_a_workload_writes_is_checked_before_anybody_uses_it() {
        for text in [
            "",
            "{}",
            "null",
            "\u{0}",
            "[1]",
            r#"{"descriptors":[],"nixl_metadata":"b64:","notification_key":"k","operation_kind":1}"#,
        ] {
            let failure = Offer::parse(text, None).unwrap_err();
            assert_eq!(failure.reason, Reason::MetadataMalformed, "{text}");
            assert!(failure.message.starts_with("status.rdmaMetadata: "), "{}", failure.message);
        }
    }
}
