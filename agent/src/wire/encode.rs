//! Writing frames into a slot. Every function says whether the frame fits and writes nothing when it does not. Pure.

use super::{
    CHECKED, DATA, DATA_HEADER, END, FILE_END, MANIFEST, MANIFEST_END, MANIFEST_HEADER, MAX_MANIFEST_PART,
    RESUMED, SAME,
};
use crate::protocol::entry::{Entry, Totals};

/// Writes frames one behind the other into bytes that it borrows, from a given place on.
#[derive(Debug)]
pub struct FrameWriter<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

/// An entry as text, for [`FrameWriter::manifest`].
pub fn encoded_entry(entry: &Entry) -> Vec<u8> {
    // Strings, numbers and lists of bytes cannot fail to become JSON.
    serde_json::to_vec(entry).unwrap_or_default()
}

/// How much content a data frame can carry that begins with `free` bytes left.
pub fn data_room(free: usize) -> usize {
    free.saturating_sub(DATA_HEADER).min(u32::MAX as usize)
}

impl<'a> FrameWriter<'a> {
    /// Goes on at `at`.
    pub fn new(bytes: &'a mut [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Where the next frame begins.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Writes as many of the entries, each as text, as fit into one frame. Gives their number; 0 writes nothing.
    pub fn manifest<'e>(&mut self, entries: impl IntoIterator<Item = &'e [u8]>) -> usize {
        let room = self.bytes.len().saturating_sub(self.at + MANIFEST_HEADER).min(MAX_MANIFEST_PART);
        let (mut text, mut count) = (Vec::new(), 0);
        for entry in entries {
            // A comma or the opening bracket before, the closing bracket behind.
            if text.len() + entry.len() + 2 > room {
                break;
            }
            text.push(if count == 0 { b'[' } else { b',' });
            text.extend_from_slice(entry);
            count += 1;
        }
        if count > 0 {
            text.push(b']');
            let length = (text.len() as u32).to_le_bytes();
            self.put(&[&[MANIFEST], &length, &text]);
        }
        count
    }

    /// The manifest's end.
    pub fn manifest_end(&mut self, totals: Totals) -> bool {
        let [entries, files, bytes] = numbers(totals);
        self.put(&[&[MANIFEST_END], &entries, &files, &bytes])
    }

    /// A piece of a file.
    pub fn data(&mut self, index: u32, offset: u64, content: &[u8]) -> bool {
        if content.is_empty() || content.len() > data_room(self.bytes.len().saturating_sub(self.at)) {
            return false;
        }
        let content_at = self.at + DATA_HEADER;
        self.bytes[content_at..content_at + content.len()].copy_from_slice(content);
        self.data_in_place(index, offset, content.len())
    }

    /// The place for the content of a data frame that begins here: read into it, then call
    /// [`FrameWriter::data_in_place`].
    pub fn data_place(&mut self) -> &mut [u8] {
        let room = data_room(self.bytes.len().saturating_sub(self.at));
        if room == 0 {
            return &mut [];
        }
        let content_at = self.at + DATA_HEADER;
        &mut self.bytes[content_at..content_at + room]
    }

    /// A piece of a file whose content stands where [`FrameWriter::data_place`] was.
    pub fn data_in_place(&mut self, index: u32, offset: u64, length: usize) -> bool {
        if length == 0 || length > data_room(self.bytes.len().saturating_sub(self.at)) {
            return false;
        }
        let short = (length as u32).to_le_bytes();
        let header = self.put(&[&[DATA], &index.to_le_bytes(), &offset.to_le_bytes(), &short]);
        self.at += length;
        header
    }

    /// A file's end.
    pub fn file_end(&mut self, index: u32, size: u64, digest: &[u8]) -> bool {
        self.put(&[&[FILE_END], &index.to_le_bytes(), &size.to_le_bytes(), &[digest.len() as u8], digest])
    }

    /// A file goes on at `offset`; `digest` is that of what lies before.
    pub fn resumed(&mut self, index: u32, offset: u64, digest: &[u8]) -> bool {
        self.put(&[&[RESUMED], &index.to_le_bytes(), &offset.to_le_bytes(), &[digest.len() as u8], digest])
    }

    /// A file that is not sent.
    pub fn same(&mut self, index: u32, size: u64, digest: &[u8]) -> bool {
        self.put(&[&[SAME], &index.to_le_bytes(), &size.to_le_bytes(), &[digest.len() as u8], digest])
    }

    /// How much of a file was compared.
    pub fn checked(&mut self, index: u32, bytes: u64) -> bool {
        self.put(&[&[CHECKED], &index.to_le_bytes(), &bytes.to_le_bytes()])
    }

    /// The end.
    pub fn end(&mut self, totals: Totals, digest: &[u8]) -> bool {
        let [entries, files, bytes] = numbers(totals);
        self.put(&[&[END], &entries, &files, &bytes, &[digest.len() as u8], digest])
    }

    fn put(&mut self, parts: &[&[u8]]) -> bool {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let Some(place) = self.bytes.get_mut(self.at..).and_then(|free| free.get_mut(..length)) else {
            return false;
        };
        let mut done = 0;
        for part in parts {
            place[done..done + part.len()].copy_from_slice(part);
            done += part.len();
        }
        self.at += length;
        true
    }
}

fn numbers(totals: Totals) -> [[u8; 8]; 3] {
    [totals.entries, totals.files, totals.bytes].map(u64::to_le_bytes)
}
