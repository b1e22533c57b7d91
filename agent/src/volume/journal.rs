//! The journal of a run at one destination: what of its partial files is durable, and which files it has committed. Written
//! by control only, read by the next attempt. Does I/O, blocking.
//!
//! It is never synced. What it says is said after the thing is done, and is believed only when file and digest agree, so a
//! record that a power failure takes costs bytes sent again, and one that it leaves alone without its file is not believed.
//! A killed process loses nothing: what was written is the kernel's.

mod book;
mod record;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nixl_transfer_crds::Algorithm;
use rustix::fs::{Mode, OFlags, fstat, fsync, renameat};
use rustix::io::Errno;
use xxhash_rust::xxh3::xxh3_64;

pub(super) use book::{Book, Durable, Page};
pub(super) use record::{Record, SourceFile};

use super::{beneath, leftovers};

/// Its name in the run's directory.
pub(super) const JOURNAL: &str = "journal";
/// Its name while it is written anew.
const ANEW: &str = "journal.new";

/// Bytes before a record: its length and the checksum of the rest.
const FRAME: usize = 4 + 8;
/// Longer is no record: the longest has a path of 4,095 bytes.
const MAX_RECORD: usize = 8 << 10;

/// It is written anew when it is longer than this, or twice as long as what it had to say last time.
const COMPACT_ABOVE: u64 = 64 << 20;

/// How often it may be written anew by another process while we open it.
const TRIES: usize = 4;

/// The journal, locked and open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    directory: OwnedFd,
    file: File,
    /// Bytes that are good; the next record goes there.
    length: u64,
    compact_above: u64,
    algorithm: Algorithm,
    node: String,
    /// The last header is of `node`: without one what follows is not read.
    headed: bool,
    /// It says something.
    useful: bool,
    /// Trouble was logged.
    complained: bool,
}

impl Journal {
    /// Opens or makes it, cuts off what is damaged, and reads the rest. `None` when another process has it.
    pub(super) fn open(
        directory: &OwnedFd,
        algorithm: Algorithm,
        node: &str,
    ) -> io::Result<Option<(Self, Book)>> {
        let Some(file) = lock(directory)? else { return Ok(None) };
        let (mut book, mut length) = read(&file, algorithm);
        if book.node().is_none() {
            (book, length) = (Book::default(), 0);
        }
        file.set_len(length)?;
        let mut journal = Self {
            directory: directory.try_clone()?,
            file,
            length,
            compact_above: COMPACT_ABOVE.max(2 * length),
            algorithm,
            node: node.to_owned(),
            headed: book.node().is_some_and(|last| **last == *node),
            useful: book.is_useful(),
            complained: false,
        };
        if let Err(error) = journal.head() {
            journal.complain(&error);
        }
        Ok(Some((journal, book)))
    }

    /// Adds a record. One that cannot be written costs the next attempt some work, so it is logged and no failure.
    pub(super) fn append(&mut self, record: &Record) {
        if let Err(error) = self.write(record) {
            self.complain(&error);
        }
    }

    /// As [`Journal::append`], for a record without which nothing more may be done: says why it could not be written.
    pub(super) fn write(&mut self, record: &Record) -> io::Result<()> {
        self.head()?;
        self.put(record)?;
        self.useful |= !matches!(record, Record::Header { .. } | Record::Forgotten { .. });
        if self.length > self.compact_above {
            if let Err(error) = self.compact() {
                self.complain(&error);
            }
            self.compact_above = COMPACT_ABOVE.max(2 * self.length);
        }
        Ok(())
    }

    /// Writes the header, unless it stands there.
    fn head(&mut self) -> io::Result<()> {
        if !self.headed {
            let (algorithm, source_node) = (self.algorithm, self.node.clone());
            self.put(&Record::Header { algorithm, source_node })?;
            self.headed = true;
        }
        Ok(())
    }

    /// What a write that failed half-way has left is written over by the next, or cut off by the next reader.
    fn put(&mut self, record: &Record) -> io::Result<()> {
        let frame = frame(record);
        self.file.write_all_at(&frame, self.length)?;
        self.length += frame.len() as u64;
        Ok(())
    }

    /// Whether it may have something to say to the next attempt.
    pub(super) fn is_useful(&self) -> bool {
        self.useful
    }

    /// Writes it anew with what still holds. A crash leaves the old one or the new one.
    fn compact(&mut self) -> io::Result<()> {
        let (book, _) = read(&self.file, self.algorithm);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC;
        let anew = beneath::open_bytes(self.directory.as_fd(), ANEW.as_bytes(), flags, MODE)?;
        // Ours before it has the name, so that nobody gets in between.
        if !leftovers::try_lock(&anew)? {
            return Err(Errno::WOULDBLOCK.into());
        }
        let file = File::from(anew);
        let mut writer = BufWriter::new(&file);
        let mut length = 0;
        for record in book.records(self.algorithm, &self.node) {
            let frame = frame(&record);
            writer.write_all(&frame)?;
            length += frame.len() as u64;
        }
        writer.flush()?;
        drop(writer);
        fsync(&file)?;
        renameat(&self.directory, ANEW, &self.directory, JOURNAL)?;
        // From here on the old one has no name, whatever follows.
        self.file = file;
        self.length = length;
        fsync(&self.directory)?;
        Ok(())
    }

    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(%error, "the journal cannot be written: a retry may have to send more again");
        }
    }

    /// From now on no room is left for it.
    #[cfg(test)]
    pub(super) fn fill(&mut self) {
        self.file = File::options().read(true).write(true).open("/dev/full").unwrap();
    }

    #[cfg(test)]
    pub(super) fn compact_above(&mut self, bytes: u64) {
        self.compact_above = bytes;
    }
}

const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The file, ours alone as long as it is open.
fn lock(directory: &OwnedFd) -> io::Result<Option<File>> {
    for _ in 0..TRIES {
        let flags = OFlags::RDWR | OFlags::CREATE;
        let file = beneath::open_bytes(directory.as_fd(), JOURNAL.as_bytes(), flags, MODE)?;
        if !leftovers::try_lock(&file)? {
            return Ok(None);
        }
        // Between the two it may have been replaced or removed.
        if fstat(&file)?.st_nlink > 0 {
            return Ok(Some(File::from(file)));
        }
    }
    Ok(None)
}

fn frame(record: &Record) -> Vec<u8> {
    let content = record.encode();
    let mut frame = Vec::with_capacity(FRAME + content.len());
    frame.extend((content.len() as u32).to_le_bytes());
    frame.extend(xxh3_64(&content).to_le_bytes());
    frame.extend(content);
    frame
}

/// What is said up to the first damage, and how many bytes that is. An error of the disk is damage like any other.
fn read(file: &File, algorithm: Algorithm) -> (Book, u64) {
    let mut reader = BufReader::new(From { file, at: 0 });
    let (mut book, mut length) = (Book::default(), 0);
    while let Some((record, bytes)) = next(&mut reader) {
        if !book.take(record, algorithm) {
            // Of another algorithm, so of another run's making: nothing of it counts.
            return (Book::default(), 0);
        }
        length += bytes;
    }
    (book, length)
}

fn next(reader: &mut impl Read) -> Option<(Record, u64)> {
    let mut head = [0; FRAME];
    reader.read_exact(&mut head).ok()?;
    let (length, checksum) = head.split_at(4);
    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
    let checksum = u64::from_le_bytes(checksum.try_into().ok()?);
    if length > MAX_RECORD {
        return None;
    }
    let mut content = vec![0; length];
    reader.read_exact(&mut content).ok()?;
    let record = (xxh3_64(&content) == checksum).then(|| Record::decode(&content))??;
    Some((record, (FRAME + length) as u64))
}

/// Reads a file from a place of its own, whatever the descriptor's is.
struct From<'a> {
    file: &'a File,
    at: u64,
}

impl Read for From<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
