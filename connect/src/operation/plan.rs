//! Which operations are possible, decided before NIXL hears of them. Pure.

use super::error::OperationError;
use crate::metadata::{MAX_DESCRIPTORS, OperationKind, RdmaMetadata, SerializedDescriptor};

/// Checks what a passive side offers.
pub(super) fn check_local(local: &[SerializedDescriptor]) -> Result<(), OperationError> {
    match local.len() {
        0 => return Err(OperationError::NoDescriptors),
        count if count > MAX_DESCRIPTORS => return Err(OperationError::TooManyDescriptors(count)),
        _ => {}
    }
    one_kind("local", local)
}

/// Checks that the local memory and the metadata's are a pair: kinds, counts and sizes.
pub(super) fn check_pair(
    needed: OperationKind,
    local: &[SerializedDescriptor],
    remote: &RdmaMetadata,
) -> Result<(), OperationError> {
    check_local(local)?;
    let offered = remote.operation_kind();
    if offered != needed {
        return Err(OperationError::Kind { offered, needed });
    }
    let remote = remote.descriptors();
    if local.len() != remote.len() {
        return Err(OperationError::Count { local: local.len(), remote: remote.len() });
    }
    for (index, (local, remote)) in local.iter().zip(remote).enumerate() {
        if local.size != remote.size {
            return Err(OperationError::Size { index, local: local.size, remote: remote.size });
        }
    }
    one_kind("remote", remote)
}

fn one_kind(side: &'static str, descriptors: &[SerializedDescriptor]) -> Result<(), OperationError> {
    let kind = |descriptor: &SerializedDescriptor| descriptor.device.memory_kind();
    let other = descriptors.windows(2).position(|pair| kind(&pair[0]) != kind(&pair[1]));
    match other {
        Some(index) => Err(OperationError::MixedMemory { side, index: index + 1 }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    const GOLDEN: &str = include_str!("../../tests/vectors/golden_rdma_metadata.json");

    fn of(device: Device, size: u64) -> SerializedDescriptor {
        SerializedDescriptor { device, ptr: 4096, size }
    }

    fn golden(name: &str) -> RdmaMetadata {
        let vectors: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
        let vector = vectors.as_array().unwrap().iter().find(|vector| vector["name"] == name).unwrap();
        RdmaMetadata::parse(vector["json"].as_str().unwrap()).unwrap()
    }

    #[test]
    fn pairs_are_checked_in_order() {
        let list = golden("read-list-b64");
        let cpu = |sizes: &[u64]| sizes.iter().map(|size| of(Device::Cpu, *size)).collect::<Vec<_>>();
        let check = |sizes: &[u64], kind| {
            check_pair(kind, &cpu(sizes), &list).map_err(|error| error.name()).err().unwrap_or("fits")
        };
        for (sizes, kind, expected) in [
            (&[64, 32, 1][..], OperationKind::Read, "fits"),
            (&[64, 32, 1], OperationKind::Write, "Kind"),
            (&[64, 32], OperationKind::Read, "Count"),
            (&[97], OperationKind::Read, "Count"),
            (&[32, 64, 1], OperationKind::Read, "Size"),
            (&[64, 32, 2], OperationKind::Read, "Size"),
            (&[], OperationKind::Read, "NoDescriptors"),
        ] {
            assert_eq!(check(sizes, kind), expected, "{sizes:?}");
        }
        assert_eq!(check(&[1; MAX_DESCRIPTORS + 1], OperationKind::Read), "TooManyDescriptors");
    }

    #[test]
    fn one_side_has_one_kind_of_memory() {
        assert!(
            check_local(&[of(Device::Cuda(0), 1), of(Device::Cuda(1), 2), of(Device::Xpu(0), 2)]).is_ok()
        );
        let mixed = check_local(&[of(Device::Cpu, 1), of(Device::Cpu, 1), of(Device::Cuda(0), 1)]);
        assert!(matches!(mixed, Err(OperationError::MixedMemory { side: "local", index: 2 })), "{mixed:?}");
    }
}
