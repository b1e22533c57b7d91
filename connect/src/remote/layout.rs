//! The peer's descriptors as one sequence of bytes, and what of them a piece of it is. Pure.

use super::RemoteError;
use crate::metadata::SerializedDescriptor;

/// A range of the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) start: u64,
    /// At least 1.
    pub(super) length: usize,
}

impl Piece {
    pub(super) fn end(self) -> u64 {
        self.start + self.length as u64
    }

    pub(super) fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

#[derive(Debug)]
pub(super) struct Layout {
    descriptors: Vec<SerializedDescriptor>,
    /// Where each of them begins in the sequence.
    starts: Vec<u64>,
    length: u64,
}

impl Layout {
    /// The descriptors in their order, one after the other: all in one kind of memory, since NIXL moves no other lists, and
    /// none over another, since a byte would have two places.
    pub(super) fn of(descriptors: &[SerializedDescriptor]) -> Result<Self, RemoteError> {
        let kind = |descriptor: &SerializedDescriptor| descriptor.device.memory_kind();
        if descriptors.windows(2).any(|pair| kind(&pair[0]) != kind(&pair[1])) {
            return Err(RemoteError::Malformed("the descriptors lie in different kinds of memory"));
        }
        let mut by_address = descriptors.to_vec();
        by_address.sort_unstable_by_key(|descriptor| (descriptor.device, descriptor.ptr));
        let one_over_the_other = |pair: &[SerializedDescriptor]| {
            pair[0].device == pair[1].device && pair[0].ptr.saturating_add(pair[0].size) > pair[1].ptr
        };
        if by_address.windows(2).any(one_over_the_other) {
            return Err(RemoteError::Malformed("descriptors lie over one another"));
        }
        let mut starts = Vec::with_capacity(descriptors.len());
        let mut length: u64 = 0;
        for descriptor in descriptors {
            starts.push(length);
            length = length
                .checked_add(descriptor.size)
                .ok_or(RemoteError::Malformed("the descriptors have more than 2^64 bytes in all"))?;
        }
        Ok(Self { descriptors: descriptors.to_vec(), starts, length })
    }

    /// Bytes in all.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn descriptors(&self) -> &[SerializedDescriptor] {
        &self.descriptors
    }

    /// Whether all of the range lies in the sequence.
    pub(super) fn check(&self, offset: u64, length: usize) -> Result<(), RemoteError> {
        match offset.checked_add(length as u64) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(RemoteError::OutOfRange { offset, length, total: self.length }),
        }
    }

    /// The memory of a piece that lies in the sequence, in its order: a part of one descriptor, or parts of several.
    pub(super) fn parts(&self, piece: Piece) -> Vec<SerializedDescriptor> {
        let first = self.starts.partition_point(|start| *start <= piece.start).saturating_sub(1);
        let from_first = self.descriptors.iter().zip(&self.starts).skip(first);
        let part = |(descriptor, start): (&SerializedDescriptor, &u64)| {
            let skipped = piece.start.saturating_sub(*start);
            let end = (piece.end() - start).min(descriptor.size);
            SerializedDescriptor {
                ptr: descriptor.ptr + skipped,
                size: end.saturating_sub(skipped),
                ..*descriptor
            }
        };
        from_first.take_while(|(_, start)| **start < piece.end()).map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    fn on(device: Device, ranges: &[(u64, u64)]) -> Vec<SerializedDescriptor> {
        ranges.iter().map(|&(ptr, size)| SerializedDescriptor { device, ptr, size }).collect()
    }

    fn parts(layout: &Layout, start: u64, length: usize) -> Vec<(u64, u64)> {
        layout.parts(Piece { start, length }).iter().map(|part| (part.ptr, part.size)).collect()
    }

    #[test]
    fn a_piece_is_made_of_the_parts_it_crosses() {
        let layout = Layout::of(&on(Device::Cuda(1), &[(1000, 64), (500, 1), (2000, 100)])).unwrap();
        assert_eq!(layout.length(), 165);
        for (start, length, expected) in [
            (0, 64, &[(1000, 64)][..]),
            (0, 1, &[(1000, 1)]),
            (63, 1, &[(1063, 1)]),
            (63, 3, &[(1063, 1), (500, 1), (2000, 1)]),
            (64, 1, &[(500, 1)]),
            (64, 2, &[(500, 1), (2000, 1)]),
            (65, 100, &[(2000, 100)]),
            (70, 10, &[(2005, 10)]),
            (164, 1, &[(2099, 1)]),
            (0, 165, &[(1000, 64), (500, 1), (2000, 100)]),
        ] {
            assert_eq!(parts(&layout, start, length), expected, "{length} bytes at {start}");
        }
        assert!(layout.parts(Piece { start: 63, length: 3 }).iter().all(|it| it.device == Device::Cuda(1)));
    }

    #[test]
    fn ranges_beyond_the_end_are_refused() {
        let layout = Layout::of(&on(Device::Cpu, &[(1000, 64), (500, 1)])).unwrap();
        for (offset, length) in [(0, 65), (65, 0), (64, 1)] {
            assert!(layout.check(offset, length).is_ok(), "{offset} {length}");
        }
        for (offset, length) in [(0, 66), (66, 0), (65, 1), (u64::MAX, 1), (1, usize::MAX)] {
            assert!(layout.check(offset, length).is_err(), "{offset} {length}");
        }
    }

    #[test]
    fn what_is_no_sequence_is_refused() {
        let mut mixed = on(Device::Cpu, &[(1000, 64)]);
        mixed.extend(on(Device::Cuda(0), &[(5000, 1)]));
        let over = on(Device::Cpu, &[(1063, 10), (1000, 64)]);
        let twice = on(Device::Cpu, &[(1000, 64), (1000, 64)]);
        let mut too_long = on(Device::Cuda(0), &[(1, u64::MAX - 1)]);
        too_long.extend(on(Device::Cuda(1), &[(1, 2)]));
        for refused in [mixed, over, twice, too_long] {
            assert!(matches!(Layout::of(&refused), Err(RemoteError::Malformed(_))), "{refused:?}");
        }
        let mut beside = on(Device::Cuda(0), &[(1000, 64)]);
        beside.extend(on(Device::Cuda(1), &[(1000, 64)]));
        assert!(Layout::of(&beside).is_ok());
        assert!(Layout::of(&on(Device::Cpu, &[(1064, 10), (1000, 64)])).is_ok());
    }
}
