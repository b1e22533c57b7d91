//! What two workers say to each other: frames inside the chunks of the stream, and answers to them that go back. A chunk is
//! a whole number of frames, so each can be checked by itself. The receiving end trusts nothing: every length is bounded before it is used. Pure.
//!
//! Little-endian. 1 manifest: length u32, JSON array of entries · 2 manifest's end: entries, files, bytes u64 · 3 data:
//! index u32, offset u64, length u32, bytes · 4 file's end: index u32, size u64, digest · 5 end: entries, files, bytes
//! u64, digest of the whole · 6 resumed: index u32, offset u64, digest of what lies before · 7 same: index u32, size u64,
//! digest · 8 checked: index u32, bytes u64. A digest is its length u8 and its bytes.

mod answer;
mod decode;
mod encode;

pub use answer::{AnswerBook, AnswerWriter, Has, SIGN_OF_WORK};
pub use decode::Frames;
pub use encode::{FrameWriter, data_room, encoded_entry};

use crate::protocol::entry::{Entry, Totals};

/// Longest JSON text of one part of the manifest: with room to spare for a message to control.
pub const MAX_MANIFEST_PART: usize = 512 * 1024;
/// Longest digest of any algorithm, in bytes.
pub const MAX_DIGEST: usize = 32;
/// Bytes before the content of a data frame.
pub const DATA_HEADER: usize = 17;
/// Bytes before the text of a part of the manifest.
const MANIFEST_HEADER: usize = 5;

const MANIFEST: u8 = 1;
const MANIFEST_END: u8 = 2;
const DATA: u8 = 3;
const FILE_END: u8 = 4;
const END: u8 = 5;
const RESUMED: u8 = 6;
const SAME: u8 = 7;
const CHECKED: u8 = 8;

/// One frame; content lies where it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The next entries of the manifest, at least one.
    Manifest(Vec<Entry>),
    /// The manifest is complete and adds up to this.
    ManifestEnd(Totals),
    /// A piece of a regular file, never empty.
    Data {
        /// The file's place in the manifest.
        index: u32,
        /// Where the piece begins in the file.
        offset: u64,
        /// Its content.
        bytes: &'a [u8],
    },
    /// A regular file is complete.
    FileEnd {
        /// Its place in the manifest.
        index: u32,
        /// Bytes that were sent of it.
        size: u64,
        /// Digest of its content.
        digest: &'a [u8],
    },
    /// The file's content begins here: the target has what lies before. Comes before its first piece.
    Resumed {
        /// Its place in the manifest.
        index: u32,
        /// Where the next piece begins, at least 1.
        offset: u64,
        /// Digest of the bytes before.
        digest: &'a [u8],
    },
    /// Nothing is sent of the file: the target has it.
    Same {
        /// Its place in the manifest.
        index: u32,
        /// Its size.
        size: u64,
        /// Digest of its content.
        digest: &'a [u8],
    },
    /// The source compares what the target has of the file that comes next, and is so far.
    Checked {
        /// The file's place in the manifest.
        index: u32,
        /// Bytes that were read.
        bytes: u64,
    },
    /// Everything was sent.
    End {
        /// As in the manifest's end.
        totals: Totals,
        /// Digest of the file, or of the tree.
        digest: &'a [u8],
    },
}

/// What is wrong with bytes that should be frames.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A chunk of no bytes has no frame.
    #[error("a chunk holds no frame")]
    Empty,
    /// The chunk ends inside a frame.
    #[error("a frame is cut off at byte {0}")]
    CutOff(usize),
    /// No such kind.
    #[error("no frame is of kind {kind}, at byte {at}")]
    Kind {
        /// What stands there.
        kind: u8,
        /// Where.
        at: usize,
    },
    /// A number is beyond its bound.
    #[error("{what} is out of bounds, at byte {at}")]
    Bounds {
        /// Which number.
        what: &'static str,
        /// Where the frame begins.
        at: usize,
    },
    /// The text of a manifest is not exactly what the encoder writes.
    #[error("a part of the manifest is malformed, at byte {at}: {fault}")]
    Manifest {
        /// Where the frame begins.
        at: usize,
        /// What is wrong.
        fault: String,
    },
}

#[cfg(test)]
mod tests;
