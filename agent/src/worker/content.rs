//! Reads what stands in an open file to digest it. Does I/O.

use std::ops::Range;
use std::os::fd::AsFd;

use rustix::io::{Errno, pread};

use crate::digest::Hasher;

/// Bytes that are read at once: few calls, and all of it in the cache when it is digested.
const BUFFER: usize = 256 * 1024;

/// Digests the bytes of a range. False when the file ends before. `each` is told how far it got after every piece, and
/// may stop it; `failed` says what an error of the file system means.
pub(super) fn digest<E>(
    file: impl AsFd,
    hasher: &mut Hasher,
    range: Range<u64>,
    failed: impl Fn(Errno) -> E,
    mut each: impl FnMut(u64) -> Result<(), E>,
) -> Result<bool, E> {
    let mut buffer = vec![0; usize::try_from(range.end - range.start).unwrap_or(BUFFER).min(BUFFER)];
    let mut at = range.start;
    while at < range.end {
        let wanted = usize::try_from(range.end - at).unwrap_or(BUFFER).min(buffer.len());
        match pread(&file, &mut buffer[..wanted], at) {
            Ok(0) => return Ok(false),
            Ok(length) => {
                hasher.update(&buffer[..length]);
                at += length as u64;
                each(at)?;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use nixl_transfer_crds::Algorithm;

    use super::*;
    use crate::digest;

    #[test]
    fn a_range_is_digested_in_pieces_and_a_short_file_is_told() {
        let file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..600_000_u32).map(|at| (at >> 3) as u8).collect();
        std::os::unix::fs::FileExt::write_all_at(&file, &content, 0).unwrap();
        let mut places = Vec::new();
        let mut hasher = Hasher::new(Algorithm::Xxh3);
        let whole = super::digest::<Errno>(
            &file,
            &mut hasher,
            10..600_000,
            |errno| errno,
            |at| {
                places.push(at);
                Ok(())
            },
        );
        assert_eq!(whole, Ok(true));
        assert_eq!(hasher.finish(), digest::of(Algorithm::Xxh3, &content[10..]).bytes);
        assert_eq!(places.last(), Some(&600_000));
        assert!(places.len() > 1);
        let beyond =
            super::digest(&file, &mut Hasher::new(Algorithm::Xxh3), 0..600_001, |errno| errno, |_| Ok(()));
        assert_eq!(beyond, Ok(false));
    }
}
