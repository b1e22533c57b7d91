//! Reads one file straight into the stream's slots, and shows that it did not change meanwhile: its identity and times
//! are the same before the first byte and after the last.

use std::os::fd::OwnedFd;

use nixl_transfer_crds::Algorithm;
use rustix::fs::{Advice, fadvise, fstat};
use rustix::io::{Errno, pread};

use super::super::failures;
use super::super::hop::Stop;
use super::packer::Packer;
use crate::digest::Hasher;
use crate::protocol::Failure;

/// Below this the kernel's own read-ahead takes the whole file anyway.
const WORTH_ADVICE: u64 = 1 << 20;

/// A file that control has opened.
#[derive(Debug)]
pub(super) struct FileToSend<'a> {
    pub(super) index: u32,
    pub(super) file: &'a OwnedFd,
    /// Its path, for messages.
    pub(super) shown: &'a str,
    /// Its size in the manifest.
    pub(super) size: u64,
}

/// What changes when a file is written, truncated, or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    inode: (u64, u64),
    size: u64,
    mtime: (i64, u64),
    ctime: (i64, u64),
}

impl FileToSend<'_> {
    /// Sends content and end; gives the digest. `moved` is told the bytes of each piece and the chunks that were sent
    /// again, and may stop the work.
    pub(super) fn send(
        &self,
        packer: &mut Packer,
        algorithm: Algorithm,
        mut moved: impl FnMut(u64, u64) -> Result<(), Stop>,
    ) -> Result<Vec<u8>, Stop> {
        let before = self.state()?;
        if before.size != self.size {
            let how = format!("it has {} bytes, the manifest says {}", before.size, self.size);
            return Err(failures::changed(self.shown, &how).into());
        }
        if self.size >= WORTH_ADVICE {
            // Advice only: without it reading is as right, and slower.
            let _ = fadvise(self.file, 0, None, Advice::Sequential);
        }
        let mut hasher = Hasher::new(algorithm);
        let mut offset = 0;
        while offset < self.size {
            let left = self.size - offset;
            let mut frames = packer.piece(left)?;
            let place = frames.data_place();
            let wanted = place.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let piece = &mut place[..wanted];
            let length = self.read(piece, offset)?;
            if length == 0 {
                let how = format!("it ends after {offset} of {} bytes", self.size);
                return Err(failures::changed(self.shown, &how).into());
            }
            hasher.update(&piece[..length]);
            frames.data_in_place(self.index, offset, length);
            let position = frames.position();
            packer.written_to(position)?;
            offset += length as u64;
            moved(length as u64, packer.resent())?;
        }
        if self.state()? != before {
            return Err(
                failures::changed(self.shown, "its size or times are others than at the first byte").into()
            );
        }
        let digest = hasher.finish();
        packer.write(|frames| frames.file_end(self.index, self.size, &digest))?;
        Ok(digest)
    }

    fn read(&self, piece: &mut [u8], offset: u64) -> Result<usize, Failure> {
        loop {
            match pread(self.file, &mut *piece, offset) {
                Ok(length) => return Ok(length),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failures::file("reading", self.shown, self.size, errno)),
            }
        }
    }

    fn state(&self) -> Result<State, Failure> {
        let stat =
            fstat(self.file).map_err(|errno| failures::file("looking at", self.shown, self.size, errno))?;
        Ok(State {
            inode: (stat.st_dev, stat.st_ino),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: (stat.st_mtime, stat.st_mtime_nsec),
            ctime: (stat.st_ctime, stat.st_ctime_nsec),
        })
    }
}
