//! The records of a journal as bytes: kind, then fields in order, numbers little-endian, texts behind their length. Pure.

use nixl_transfer_crds::Algorithm;

use crate::protocol::entry::Time;
use crate::volume::identity::{Identity, Unnamed};

/// Version of this file's format; a journal of another one is not read.
pub(super) const VERSION: u8 = 1;

/// What tells a file of the source. The inode counts only among records of one source node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::volume) struct SourceFile {
    /// Bytes.
    pub size: u64,
    pub mtime: Time,
    pub inode: u64,
}

/// One thing that the journal says. Paths are those of the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::volume) enum Record {
    /// The first record; once more wherever another source node takes over.
    Header { algorithm: Algorithm, source_node: String },
    /// The first `length` bytes of the partial file are on disk and have this digest.
    Durable { path: Vec<u8>, source: SourceFile, length: u64, digest: Vec<u8> },
    /// The partial file is about to get its name. Written where nothing but our own may be replaced, so that what was
    /// named right before a crash is known as ours. A symbolic link has this one only.
    Naming { path: Vec<u8>, file: Unnamed },
    /// It has its name: what stood there right after.
    Committed { path: Vec<u8>, source: SourceFile, file: Identity, digest: Vec<u8> },
    /// What was said of the partial file holds no more.
    Forgotten { path: Vec<u8> },
}

const HEADER: u8 = 0;
const DURABLE: u8 = 1;
const NAMING: u8 = 2;
const COMMITTED: u8 = 3;
const FORGOTTEN: u8 = 4;

impl Record {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        match self {
            Self::Header { algorithm, source_node } => {
                out.extend([HEADER, VERSION, number_of(*algorithm)]);
                text(&mut out, source_node.as_bytes());
            }
            Self::Durable { path, source, length, digest } => {
                out.push(DURABLE);
                text(&mut out, path);
                source_file(&mut out, *source);
                number(&mut out, *length);
                text(&mut out, digest);
            }
            Self::Naming { path, file } => {
                out.push(NAMING);
                text(&mut out, path);
                numbers(&mut out, [file.device, file.inode, file.size]);
                time(&mut out, file.modified);
            }
            Self::Committed { path, source, file, digest } => {
                out.push(COMMITTED);
                text(&mut out, path);
                source_file(&mut out, *source);
                numbers(&mut out, [file.device, file.inode, file.size]);
                time(&mut out, file.modified);
                time(&mut out, file.changed);
                text(&mut out, digest);
            }
            Self::Forgotten { path } => {
                out.push(FORGOTTEN);
                text(&mut out, path);
            }
        }
        out
    }

    /// `None` for what [`Record::encode`] does not write.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        let record = match rest.byte()? {
            HEADER if rest.byte()? == VERSION => Self::Header {
                algorithm: algorithm_of(rest.byte()?)?,
                source_node: String::from_utf8(rest.text()?).ok()?,
            },
            DURABLE => Self::Durable {
                path: rest.text()?,
                source: rest.source_file()?,
                length: rest.number()?,
                digest: rest.text()?,
            },
            NAMING => Self::Naming {
                path: rest.text()?,
                file: Unnamed {
                    device: rest.number()?,
                    inode: rest.number()?,
                    size: rest.number()?,
                    modified: rest.time()?,
                },
            },
            COMMITTED => Self::Committed {
                path: rest.text()?,
                source: rest.source_file()?,
                file: Identity {
                    device: rest.number()?,
                    inode: rest.number()?,
                    size: rest.number()?,
                    modified: rest.time()?,
                    changed: rest.time()?,
                },
                digest: rest.text()?,
            },
            FORGOTTEN => Self::Forgotten { path: rest.text()? },
            _ => return None,
        };
        rest.0.is_empty().then_some(record)
    }
}

fn number_of(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::Xxh3 => 1,
        Algorithm::Crc64Nvme => 2,
        Algorithm::Blake3 => 3,
    }
}

fn algorithm_of(number: u8) -> Option<Algorithm> {
    [Algorithm::Xxh3, Algorithm::Crc64Nvme, Algorithm::Blake3]
        .into_iter()
        .find(|algorithm| number_of(*algorithm) == number)
}

fn number(out: &mut Vec<u8>, number: u64) {
    out.extend(number.to_le_bytes());
}

fn numbers<const N: usize>(out: &mut Vec<u8>, all: [u64; N]) {
    all.into_iter().for_each(|one| number(out, one));
}

fn time(out: &mut Vec<u8>, time: Time) {
    out.extend(time.seconds.to_le_bytes());
    out.extend(time.nanoseconds.to_le_bytes());
}

/// Paths are 4,095 bytes at most, digests 32, names of nodes 253: see `path`, `digest` and the API's schema.
fn text(out: &mut Vec<u8>, text: &[u8]) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend(length.to_le_bytes());
    out.extend(&text[..usize::from(length)]);
}

fn source_file(out: &mut Vec<u8>, file: SourceFile) {
    numbers(out, [file.size, file.inode]);
    time(out, file.mtime);
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Option<Time> {
        let seconds = i64::from_le_bytes(self.take()?);
        Some(Time { seconds, nanoseconds: u32::from_le_bytes(self.take()?) })
    }

    fn text(&mut self) -> Option<Vec<u8>> {
        let length = usize::from(u16::from_le_bytes(self.take()?));
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken.to_vec())
    }

    fn source_file(&mut self) -> Option<SourceFile> {
        let (size, inode) = (self.number()?, self.number()?);
        Some(SourceFile { size, inode, mtime: self.time()? })
    }
}
