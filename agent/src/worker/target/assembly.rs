//! The order of frames, as the target knows it: manifest, then each regular file of it in order, complete, or from the
//! place on to which it is here already, then the end. Whatever else comes is an error. Pure.

use nixl_transfer_crds::{Algorithm, Reason};

use crate::digest;
use crate::manifest::{self, MAX_ENTRIES};
use crate::protocol::Failure;
use crate::protocol::entry::{Entry, EntryKind, Time, Totals};
use crate::wire::Frame;

/// What the manifest says about a regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileFacts {
    pub(super) index: u32,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) mtime: Time,
}

/// What a frame means at the place where it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// The next entries.
    Part(Vec<Entry>),
    /// The manifest is complete and sound.
    ManifestComplete(Totals),
    /// The next bytes of the file.
    Piece { file: FileFacts, offset: u64, bytes: &'a [u8] },
    /// The file has all its bytes.
    FileComplete { file: FileFacts, digest: &'a [u8] },
    /// The file goes on at `offset`; `digest` is that of what must be here.
    Resumed { file: FileFacts, offset: u64, digest: &'a [u8] },
    /// The file is here, with this digest.
    Same { file: FileFacts, digest: &'a [u8] },
    /// The source has read so much of the file to compare it.
    Checked { file: FileFacts, bytes: u64 },
    /// Everything came.
    Done { digest: &'a [u8] },
}

#[derive(Debug)]
pub(super) struct Assembly {
    digest_length: usize,
    entries: Vec<Entry>,
    totals: Option<Totals>,
    /// The regular file whose bytes come now.
    current: Option<FileFacts>,
    /// How many bytes of it came, or need not come.
    received: u64,
    /// How many bytes of it the source has compared.
    compared: u64,
    done: bool,
}

impl Assembly {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        let digest_length = digest::length(algorithm);
        Self {
            digest_length,
            entries: Vec::new(),
            totals: None,
            current: None,
            received: 0,
            compared: 0,
            done: false,
        }
    }

    /// Whether everything came.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// A file's path, for messages.
    pub(super) fn path(&self, index: u32) -> String {
        self.entries.get(index as usize).map(|entry| entry.path.display()).unwrap_or_default()
    }

    /// Takes the next frame.
    ///
    /// # Errors
    /// `IntegrityError` for what does not come here, or what [`manifest::check`] refuses.
    pub(super) fn take<'a>(&mut self, frame: Frame<'a>) -> Result<Step<'a>, Failure> {
        match (frame, self.totals) {
            (Frame::Manifest(entries), None) => {
                if self.entries.len() + entries.len() > MAX_ENTRIES {
                    return Err(wrong("the manifest is longer than any may be"));
                }
                self.entries.extend_from_slice(&entries);
                Ok(Step::Part(entries))
            }
            (Frame::ManifestEnd(totals), None) => {
                manifest::check(&self.entries, totals)?;
                self.totals = Some(totals);
                self.current = self.file_from(0);
                Ok(Step::ManifestComplete(totals))
            }
            (Frame::Data { index, offset, bytes }, Some(_)) => {
                let file = self.current_is(index)?;
                let end = offset.saturating_add(bytes.len() as u64);
                if offset != self.received || end > file.size {
                    return Err(wrong("a piece of a file is not the next one"));
                }
                self.received = end;
                Ok(Step::Piece { file, offset, bytes })
            }
            (Frame::FileEnd { index, size, digest }, Some(_)) => {
                let file = self.current_is(index)?;
                if size != file.size || self.received != size {
                    return Err(wrong("a file's end comes before all its bytes, or names another size"));
                }
                self.check_digest(digest)?;
                self.next_file(index);
                Ok(Step::FileComplete { file, digest })
            }
            (Frame::Resumed { index, offset, digest }, Some(_)) => {
                let file = self.current_is(index)?;
                if self.received != 0 || offset > file.size {
                    return Err(wrong("a file goes on at a place where it cannot"));
                }
                self.check_digest(digest)?;
                self.received = offset;
                Ok(Step::Resumed { file, offset, digest })
            }
            (Frame::Same { index, size, digest }, Some(_)) => {
                let file = self.current_is(index)?;
                if self.received != 0 || size != file.size {
                    return Err(wrong("a file that is here has another size, or was begun"));
                }
                self.check_digest(digest)?;
                self.next_file(index);
                Ok(Step::Same { file, digest })
            }
            (Frame::Checked { index, bytes }, Some(_)) => {
                let file = self.current_is(index)?;
                if self.received != 0 || bytes > file.size || bytes <= self.compared {
                    return Err(wrong("more was compared of a file than it has, or no more than before"));
                }
                self.compared = bytes;
                Ok(Step::Checked { file, bytes })
            }
            (Frame::End { totals, digest }, Some(announced)) => {
                if self.done || self.current.is_some() || totals != announced {
                    return Err(wrong("the end comes too early or too often, or adds up to something else"));
                }
                self.check_digest(digest)?;
                self.done = true;
                Ok(Step::Done { digest })
            }
            (Frame::Manifest(_) | Frame::ManifestEnd(_), Some(_)) => {
                Err(wrong("the manifest goes on after its end"))
            }
            (_, None) => Err(wrong("content comes before the manifest's end")),
        }
    }

    fn next_file(&mut self, done: u32) {
        (self.received, self.compared) = (0, 0);
        self.current = self.file_from(done as usize + 1);
    }

    fn current_is(&self, index: u32) -> Result<FileFacts, Failure> {
        self.current.filter(|file| file.index == index).ok_or_else(|| wrong("content is not the next file's"))
    }

    fn check_digest(&self, digest: &[u8]) -> Result<(), Failure> {
        if digest.len() == self.digest_length { Ok(()) } else { Err(wrong("a digest has another length")) }
    }

    /// The first regular file at `start` or behind.
    fn file_from(&self, start: usize) -> Option<FileFacts> {
        let rest = self.entries.get(start..)?;
        rest.iter().enumerate().find_map(|(ahead, entry)| match entry.kind {
            EntryKind::File { size, mode, mtime, .. } => {
                Some(FileFacts { index: u32::try_from(start + ahead).ok()?, size, mode, mtime })
            }
            _ => None,
        })
    }
}

fn wrong(what: &str) -> Failure {
    Failure::new(Reason::IntegrityError, format!("the source broke the order of frames: {what}"))
}

#[cfg(test)]
mod tests;
