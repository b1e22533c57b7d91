//! Reads one file straight into the stream's slots, and shows that it did not change meanwhile: its identity and times
//! are the same before the first byte and after the last. Of memory nobody can tell: what counts is what was read. What the
//! target has of it is compared here, and not sent.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nixl_transfer_crds::Algorithm;
use rustix::fs::{Advice, fadvise, fstat};
use rustix::io::{Errno, pread};

use super::super::content;
use super::super::failures;
use super::super::hop::Stop;
use super::packer::Packer;
use super::passing::Passing;
use crate::digest::Hasher;
use crate::protocol::Failure;
use crate::wire::Has;

/// Below this the kernel's own read-ahead takes the whole file anyway.
const WORTH_ADVICE: u64 = 1 << 20;

/// How often the target hears how far a comparison is.
const TELL: Duration = Duration::from_secs(1);

/// A file that control has opened.
#[derive(Debug)]
pub(super) struct FileToSend<'a> {
    pub(super) index: u32,
    pub(super) file: &'a OwnedFd,
    /// Its path, for messages.
    pub(super) shown: &'a str,
    /// Its size in the manifest.
    pub(super) size: u64,
    /// The digest of its content, when it is known from before.
    pub(super) known: Option<&'a [u8]>,
    /// Whether it is memory.
    pub(super) memory: bool,
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
    /// Sends what the target does not have, and gives the digest of the whole. `moved` is told the bytes of each piece and
    /// the chunks that were sent again, and may stop the work.
    pub(super) fn send(
        &self,
        packer: &mut Packer,
        algorithm: Algorithm,
        has: &Has,
        mut moved: impl FnMut(u64, u64) -> Result<(), Stop>,
    ) -> Result<Vec<u8>, Stop> {
        let before = if self.memory { None } else { Some(self.state()?) };
        if let Some(before) = before.filter(|before| before.size != self.size) {
            let how = format!("it has {} bytes, the manifest says {}", before.size, self.size);
            return Err(failures::changed(self.shown, &how).into());
        }
        if self.size >= WORTH_ADVICE && !self.memory {
            // Advice only: without it reading is as right, and slower.
            let _ = fadvise(self.file, 0, None, Advice::Sequential);
        }
        let passing = &mut Passing::begin(self.file, self.size);
        let mut hasher = Hasher::new(algorithm);
        let offset = match has {
            Has::Nothing => 0,
            Has::Prefix { length, digest } if *length <= self.size => {
                self.digest_to(*length, passing, &mut hasher, packer, &mut moved)?;
                if hasher.finish() == *digest { *length } else { 0 }
            }
            Has::Prefix { .. } => 0,
            Has::Whole { digest } => {
                let own = match self.known {
                    Some(known) => known.to_vec(),
                    None => {
                        self.digest_to(self.size, passing, &mut hasher, packer, &mut moved)?;
                        hasher.finish()
                    }
                };
                if own == *digest {
                    self.check_unchanged(before)?;
                    packer.write(|frames| frames.same(self.index, self.size, digest))?;
                    return Ok(own);
                }
                0
            }
        };
        if offset > 0 {
            let prefix = hasher.finish();
            packer.write(|frames| frames.resumed(self.index, offset, &prefix))?;
        } else {
            hasher = Hasher::new(algorithm);
        }
        self.content(offset, passing, &mut hasher, packer, &mut moved)?;
        self.check_unchanged(before)?;
        let digest = hasher.finish();
        packer.write(|frames| frames.file_end(self.index, self.size, &digest))?;
        Ok(digest)
    }

    /// Sends the bytes from `offset` on.
    fn content(
        &self,
        mut offset: u64,
        passing: &mut Passing<'_>,
        hasher: &mut Hasher,
        packer: &mut Packer,
        moved: &mut impl FnMut(u64, u64) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        while offset < self.size {
            let left = self.size - offset;
            let mut frames = packer.piece(left)?;
            let place = frames.data_place();
            let wanted = place.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let piece = &mut place[..wanted];
            let length = self.read(piece, offset)?;
            if length == 0 {
                return Err(self.ends_early(offset).into());
            }
            hasher.update(&piece[..length]);
            frames.data_in_place(self.index, offset, length);
            let position = frames.position();
            packer.written_to(position)?;
            passing.read(offset..offset + length as u64);
            offset += length as u64;
            moved(length as u64, packer.resent())?;
        }
        Ok(())
    }

    /// Digests the first bytes, to compare them. The target hears how far that is, or it would take it for standing still.
    fn digest_to(
        &self,
        length: u64,
        passing: &mut Passing<'_>,
        hasher: &mut Hasher,
        packer: &mut Packer,
        moved: &mut impl FnMut(u64, u64) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let (mut told, mut read) = (Instant::now(), 0);
        let failed = |errno| Stop::Failed(failures::file("reading", self.shown, self.size, errno));
        let whole = content::digest(self.file, hasher, 0..length, failed, |at| {
            passing.read(read..at);
            read = at;
            if told.elapsed() >= TELL {
                told = Instant::now();
                packer.write(|frames| frames.checked(self.index, at))?;
                packer.flush()?;
                moved(0, packer.resent())?;
            }
            Ok(())
        })?;
        if whole { Ok(()) } else { Err(self.ends_early(length).into()) }
    }

    fn ends_early(&self, offset: u64) -> Failure {
        let how = format!("it ends before {offset} of {} bytes", self.size);
        failures::changed(self.shown, &how)
    }

    fn check_unchanged(&self, before: Option<State>) -> Result<(), Failure> {
        match before {
            Some(before) if self.state()? != before => {
                Err(failures::changed(self.shown, "its size or times are others than at the first byte"))
            }
            _ => Ok(()),
        }
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
