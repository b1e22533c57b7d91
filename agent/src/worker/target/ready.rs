//! A file that the target is about to write, with what is here of it already, and the same file while it is written. It may
//! be memory instead.

use std::fmt;
use std::sync::Arc;

use nixl_transfer_crds::{Algorithm, Reason};
use rustix::fs::ftruncate;
use rustix::io::{Errno, pwrite};

use super::super::content;
use super::super::failures;
use super::super::pieces::Pieces;
use super::partial_file::PartialFile;
use crate::digest::Hasher;
use crate::protocol::Failure;

/// Where the bytes go.
#[derive(Debug)]
pub(super) enum Place {
    /// Into a file, or memory that is like one.
    File(Arc<PartialFile>),
    /// Into memory that no descriptor maps.
    Pieces(Box<Pieces>),
}

/// A file that control has opened and whose beginning was looked at.
pub(in crate::worker) struct ReadyFile {
    pub(super) index: u32,
    pub(super) place: Place,
    /// How many of its first bytes are here, proven by their digest, and the digest in the making after them.
    pub(super) prefix: Option<(u64, Hasher)>,
    /// Digest of the file that stands at the destination.
    pub(super) standing: Option<Vec<u8>>,
}

/// A file that is being written.
pub(super) struct OpenFile {
    pub(super) place: Place,
    pub(super) hasher: Hasher,
    pub(super) standing: Option<Vec<u8>>,
    /// So much of it is on the disk, or on its way there.
    pub(super) marked: u64,
}

impl fmt::Debug for ReadyFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ReadyFile").field("index", &self.index).finish_non_exhaustive()
    }
}

impl ReadyFile {
    /// The source sends it from its first byte on: what was here of it is of no use.
    pub(super) fn begin(self, algorithm: Algorithm, path: &str) -> Result<OpenFile, Failure> {
        if let (Some(_), Place::File(file)) = (&self.prefix, &self.place) {
            ftruncate(file, 0).map_err(|errno| failures::file("emptying", path, 0, errno))?;
        }
        let Self { place, standing, .. } = self;
        Ok(OpenFile { place, hasher: Hasher::new(algorithm), standing, marked: 0 })
    }

    /// The source sends it from `offset` on, and says what the digest of the bytes before is. They must be here: what was
    /// proven to be, or its beginning, which is read again.
    pub(super) fn resumed(
        self,
        offset: u64,
        digest: &[u8],
        algorithm: Algorithm,
        path: &str,
        sign: impl FnMut(u64) -> Result<(), Failure>,
    ) -> Result<OpenFile, Failure> {
        let wrong = |what: &str| Failure::new(Reason::IntegrityError, format!("{path}: {what}"));
        let Self { place, prefix, standing, .. } = self;
        let Place::File(file) = place else { return Err(wrong("memory begins anew each time")) };
        let hasher = match prefix {
            Some((length, hasher)) if length == offset => hasher,
            Some((length, _)) if length > offset => {
                let mut hasher = Hasher::new(algorithm);
                // What cannot be read is no better than what is wrong: it must not come back in the next attempt.
                let failed = |errno: Errno| wrong(&format!("what is here of it cannot be read: {errno}"));
                content::digest(&file, &mut hasher, 0..offset, failed, sign)?;
                hasher
            }
            _ => return Err(wrong("the source goes on at a place that is not reached here")),
        };
        if hasher.finish() != digest {
            return Err(wrong("what is here of it is not what the source has"));
        }
        Ok(OpenFile { place: Place::File(file), hasher, standing, marked: offset })
    }

    /// Whether the file that stands at the destination has this content.
    pub(super) fn stands(&self, digest: &[u8]) -> bool {
        self.standing.as_deref() == Some(digest)
    }
}

impl OpenFile {
    /// Writes and digests the next bytes.
    pub(super) fn write(
        &mut self,
        mut bytes: &[u8],
        mut offset: u64,
        path: impl Fn() -> String,
        size: u64,
    ) -> Result<(), Failure> {
        self.hasher.update(bytes);
        let file = match &mut self.place {
            Place::File(file) => file,
            Place::Pieces(memory) => return memory.write(offset, bytes),
        };
        while !bytes.is_empty() {
            match pwrite(&*file, bytes, offset) {
                Ok(0) => return Err(failures::file("writing", &path(), size, Errno::IO)),
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failures::file("writing", &path(), size, errno)),
            }
        }
        Ok(())
    }
}
