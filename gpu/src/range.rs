//! Numbers of bytes: rounding, and what lies within what. No I/O.

use crate::error::GpuError;

/// The next multiple of `granularity`, in bytes.
///
/// # Errors
/// [`GpuError::Length`] for 0 bytes, and when it is no number of 64 bits or of this machine's addresses.
pub(crate) fn round_up(bytes: u64, granularity: usize) -> Result<usize, GpuError> {
    let rounded = match bytes {
        0 => None,
        _ => bytes.checked_next_multiple_of(granularity.max(1) as u64),
    };
    rounded.and_then(|rounded| usize::try_from(rounded).ok()).ok_or(GpuError::Length(bytes))
}

/// Checks that `bytes` from `offset` on lie within `length`. None at all lie within it up to its end.
///
/// # Errors
/// [`GpuError::Range`].
pub(crate) fn check(offset: u64, bytes: u64, length: u64) -> Result<(), GpuError> {
    match offset.checked_add(bytes) {
        Some(end) if end <= length => Ok(()),
        _ => Err(GpuError::Range { offset, bytes, length }),
    }
}

/// Cuts `length` bytes into pieces of at most `size`: where each begins, and its length. In order and without gaps.
pub(crate) fn pieces(length: u64, size: usize) -> impl Iterator<Item = (u64, usize)> {
    let size = size.max(1);
    let at = (0..length).step_by(size);
    at.map(move |at| (at, usize::try_from(length - at).map_or(size, |left| left.min(size))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_rounded_up_to_the_granularity() {
        let granularity = 2 << 20;
        for (bytes, rounded) in
            [(1, granularity), (granularity as u64, granularity), (granularity as u64 + 1, 2 * granularity)]
        {
            assert_eq!(round_up(bytes, granularity).unwrap(), rounded);
        }
        assert_eq!(round_up(5, 0).unwrap(), 5, "a granularity that a driver should never say");
        for bytes in [0, u64::MAX] {
            assert!(matches!(round_up(bytes, granularity), Err(GpuError::Length(_))), "{bytes}");
        }
    }

    #[test]
    fn what_is_not_within_is_refused() {
        for (offset, bytes) in [(0, 0), (0, 10), (9, 1), (10, 0)] {
            assert!(check(offset, bytes, 10).is_ok(), "{offset} {bytes}");
        }
        for (offset, bytes) in [(0, 11), (10, 1), (11, 0), (u64::MAX, 1), (1, u64::MAX)] {
            assert!(matches!(check(offset, bytes, 10), Err(GpuError::Range { .. })), "{offset} {bytes}");
        }
    }

    #[test]
    fn pieces_cover_all_and_the_last_is_the_rest() {
        for (length, expected) in
            [(0, vec![]), (3, vec![(0, 3)]), (4, vec![(0, 4)]), (9, vec![(0, 4), (4, 4), (8, 1)])]
        {
            assert_eq!(pieces(length, 4).collect::<Vec<_>>(), expected);
        }
    }
}
