//! Reading frames out of a chunk, strictly: what the encoder would not write is an error. Pure.

use super::{
    CHECKED, DATA, END, FILE_END, Frame, MANIFEST, MANIFEST_END, MAX_DIGEST, MAX_MANIFEST_PART, RESUMED,
    SAME, WireError,
};
use crate::protocol::entry::{Entry, Totals};

/// The frames of one chunk. Nothing comes after the first error.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    cursor: Cursor<'a>,
    failed: bool,
}

/// Bytes, and how far they were read.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Frames<'a> {
    /// Frames from the chunk's first byte on.
    ///
    /// # Errors
    /// [`WireError::Empty`] for no bytes.
    pub fn new(chunk: &'a [u8]) -> Result<Self, WireError> {
        if chunk.is_empty() {
            Err(WireError::Empty)
        } else {
            Ok(Self { cursor: Cursor::new(chunk), failed: false })
        }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.cursor.is_at_end() {
            return None;
        }
        let frame = self.cursor.frame();
        self.failed = frame.is_err();
        Some(frame)
    }
}

/// A number beyond its bound.
pub(super) fn bounds(what: &'static str, at: usize) -> WireError {
    WireError::Bounds { what, at }
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn frame(&mut self) -> Result<Frame<'a>, WireError> {
        let at = self.at;
        let bounds = |what| bounds(what, at);
        let [kind] = self.array()?;
        match kind {
            MANIFEST => {
                let length = u32::from_le_bytes(self.array()?) as usize;
                if length > MAX_MANIFEST_PART {
                    return Err(bounds("the length of a part of the manifest"));
                }
                let entries =
                    entries(self.take(length)?).map_err(|fault| WireError::Manifest { at, fault })?;
                Ok(Frame::Manifest(entries))
            }
            MANIFEST_END => Ok(Frame::ManifestEnd(self.totals()?)),
            DATA => {
                let index = u32::from_le_bytes(self.array()?);
                let offset = u64::from_le_bytes(self.array()?);
                let length = u32::from_le_bytes(self.array()?);
                if length == 0 {
                    return Err(bounds("the length of a piece"));
                }
                // Files end below 2^63, as the kernel's offsets do.
                if offset.checked_add(u64::from(length)).is_none_or(|end| i64::try_from(end).is_err()) {
                    return Err(bounds("the offset of a piece"));
                }
                Ok(Frame::Data { index, offset, bytes: self.take(length as usize)? })
            }
            FILE_END => {
                let index = u32::from_le_bytes(self.array()?);
                let size = u64::from_le_bytes(self.array()?);
                if i64::try_from(size).is_err() {
                    return Err(bounds("the size of a file"));
                }
                Ok(Frame::FileEnd { index, size, digest: self.digest(at)? })
            }
            RESUMED => {
                let index = u32::from_le_bytes(self.array()?);
                let offset = u64::from_le_bytes(self.array()?);
                if offset == 0 || i64::try_from(offset).is_err() {
                    return Err(bounds("the place where a file goes on"));
                }
                Ok(Frame::Resumed { index, offset, digest: self.digest(at)? })
            }
            SAME => {
                let index = u32::from_le_bytes(self.array()?);
                let size = u64::from_le_bytes(self.array()?);
                if i64::try_from(size).is_err() {
                    return Err(bounds("the size of a file"));
                }
                Ok(Frame::Same { index, size, digest: self.digest(at)? })
            }
            CHECKED => {
                let index = u32::from_le_bytes(self.array()?);
                Ok(Frame::Checked { index, bytes: u64::from_le_bytes(self.array()?) })
            }
            END => Ok(Frame::End { totals: self.totals()?, digest: self.digest(at)? }),
            kind => Err(WireError::Kind { kind, at }),
        }
    }

    fn totals(&mut self) -> Result<Totals, WireError> {
        let mut number = || self.array().map(u64::from_le_bytes);
        Ok(Totals { entries: number()?, files: number()?, bytes: number()? })
    }

    pub(super) fn digest(&mut self, at: usize) -> Result<&'a [u8], WireError> {
        let [length] = self.array()?;
        let length = usize::from(length);
        if length == 0 || length > MAX_DIGEST {
            return Err(bounds("the length of a digest", at));
        }
        self.take(length)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let bytes = self.take(N)?;
        bytes.first_chunk().copied().ok_or(WireError::CutOff(self.at))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(taken) = rest.get(..length) else { return Err(WireError::CutOff(self.bytes.len())) };
        self.at += length;
        Ok(taken)
    }
}

/// JSON has many texts for one value; only the encoder's is taken, so that a part is no larger when it is told to
/// control than it was here.
fn entries(text: &[u8]) -> Result<Vec<Entry>, String> {
    let entries: Vec<Entry> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if entries.is_empty() {
        return Err("no entry".into());
    }
    match serde_json::to_vec(&entries) {
        Ok(canonical) if canonical == text => Ok(entries),
        _ => Err("not the one text that stands for its entries".into()),
    }
}
