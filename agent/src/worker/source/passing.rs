//! A large file that nobody had in memory leaves nothing there when it has passed: read through the page cache, it would
//! push out what others want. One that was cached is somebody's, and stays. Advice only, nothing fails by it.

use std::io::IoSliceMut;
use std::num::NonZero;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// Smaller files push little out, and are wanted soon by whoever has them moved.
const LARGE: u64 = 256 << 20;
/// Pages are given back in steps of so many bytes, on their multiples: no folio lies across one.
const STEP: u64 = 16 << 20;
/// Places that are looked at to tell whether a file is cached. Not the beginning, which many have read.
const PLACES: u64 = 8;

/// The reading of one file.
#[derive(Debug)]
pub(super) struct Passing<'a> {
    file: BorrowedFd<'a>,
    size: u64,
    gives_back: bool,
    /// What lies before this was given back, or was not read.
    behind: u64,
}

impl<'a> Passing<'a> {
    /// To be made before the first byte is read.
    pub(super) fn begin(file: &'a impl AsFd, size: u64) -> Self {
        Self::of(file.as_fd(), size, LARGE)
    }

    fn of(file: BorrowedFd<'a>, size: u64, large: u64) -> Self {
        Self { file, size, gives_back: size >= large && !is_cached(file, size), behind: 0 }
    }

    /// These bytes were read and are not needed again.
    pub(super) fn read(&mut self, bytes: Range<u64>) {
        if !self.gives_back {
            return;
        }
        if bytes.start < self.behind {
            // From an earlier place once more.
            self.behind = bytes.start / STEP * STEP;
        }
        let until = if bytes.end >= self.size { self.size } else { bytes.end / STEP * STEP };
        if let Some(length) = until.checked_sub(self.behind).and_then(NonZero::new) {
            let _ = fadvise(self.file, self.behind, Some(length), Advice::DontNeed);
            self.behind = until;
        }
    }
}

/// Whether half of it or more can be had without waiting for a disk. Where the file system cannot say, it is taken for
/// cached. To look has the kernel begin to read there, so a second look says less.
fn is_cached(file: BorrowedFd<'_>, size: u64) -> bool {
    let missing = (0..PLACES).filter(|place| {
        let at = (2 * place + 1) * (size / (2 * PLACES));
        let mut byte = [0];
        preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT) == Err(Errno::AGAIN)
    });
    missing.count() as u64 * 2 <= PLACES
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use super::*;

    const SIZE: u64 = 40 << 20;

    fn read_all(file: &File, passing: &mut Passing<'_>) {
        let mut buffer = vec![0; 1 << 20];
        for at in (0..SIZE).step_by(buffer.len()) {
            file.read_exact_at(&mut buffer, at).unwrap();
            passing.read(at..at + buffer.len() as u64);
        }
    }

    /// A file on the disk of which nothing is in memory, where there is such a thing.
    fn cold() -> File {
        let mut file = tempfile::tempfile().unwrap();
        let megabyte: Vec<u8> = (0..1_u32 << 20).map(|at| (at >> 3) as u8).collect();
        (0..SIZE >> 20).for_each(|_| file.write_all(&megabyte).unwrap());
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        file
    }

    #[test]
    fn what_was_not_in_memory_is_not_there_after() {
        let file = cold();
        let mut passing = Passing::of(file.as_fd(), SIZE, SIZE);
        if !passing.gives_back {
            let place = std::env::temp_dir();
            return println!("skipped: {} keeps its files in memory (tmpfs?)", place.display());
        }
        read_all(&file, &mut passing);
        assert!(!is_cached(file.as_fd(), SIZE), "given back");
        // From its beginning once more, as when what the target has turns out to be another file.
        read_all(&file, &mut passing);
        assert!(!is_cached(file.as_fd(), SIZE), "given back a second time");

        let mut small = Passing::of(file.as_fd(), SIZE, SIZE + 1);
        read_all(&file, &mut small);
        assert!(is_cached(file.as_fd(), SIZE), "a file that is not large stays");
        read_all(&file, &mut Passing::of(file.as_fd(), SIZE, SIZE));
        assert!(is_cached(file.as_fd(), SIZE), "what was there before stays");
    }
}
