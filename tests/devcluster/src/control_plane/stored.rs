//! All that the API server ever stored, every version of every object, read from etcd's write-ahead log: it asks nobody, so it
//! costs a test nothing and works without an API server. Reads files only.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// A frame of the log begins with its length; the upper byte says how many bytes of padding follow.
const LENGTH: u64 = (1 << 56) - 1;
/// etcd takes no request that is larger, and what is no length is no frame.
const MAX_FRAME: u64 = 64 << 20;

/// From a frame to what a request writes: `Record.data`, `Entry.Data`, then `InternalRaftRequest.txn`, its `success`, and of
/// that `request_put`.
const WRITES: [u64; 5] = [3, 4, 6, 2, 2];
const KEY: u64 = 1;
const VALUE: u64 = 2;

/// Shows `see` each key and value, in the order in which they were written.
pub(super) fn each(etcd_data: &Path, mut see: impl FnMut(&str, &[u8])) -> Result<()> {
    let directory = etcd_data.join("member/wal");
    let entries =
        fs::read_dir(&directory).with_context(|| format!("etcd's log in {}", directory.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let mut logs: Vec<_> =
        paths.into_iter().filter(|path| path.extension().is_some_and(|it| it == "wal")).collect();
    logs.sort();
    let mut seen = 0;
    for log in logs {
        let mut log = BufReader::new(File::open(log)?);
        while let Some(frame) = next_frame(&mut log)? {
            within(&frame, &WRITES, &mut |put| {
                let field = |number| Fields(put).find(|(it, _)| *it == number).map(|(_, bytes)| bytes);
                if let (Some(key), Some(value)) = (field(KEY), field(VALUE)) {
                    seen += 1;
                    see(&String::from_utf8_lossy(key), value);
                }
            });
        }
    }
    ensure!(seen > 0, "nothing was read from etcd's log in {}: has its form changed?", directory.display());
    Ok(())
}

/// None at the end of what is written: the rest of the file is zeros.
fn next_frame(log: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; 8];
    if log.read_exact(&mut head).is_err() {
        return Ok(None);
    }
    let head = u64::from_le_bytes(head);
    let (length, padding) = (head & LENGTH, head >> 56 & 7);
    if length == 0 || length > MAX_FRAME {
        return Ok(None);
    }
    let mut frame = Vec::new();
    log.take(length).read_to_end(&mut frame)?;
    io::copy(&mut log.take(padding), &mut io::sink())?;
    Ok(Some(frame))
}

/// Calls `found` for every message at this path of field numbers.
fn within<'a>(message: &'a [u8], path: &[u64], found: &mut impl FnMut(&'a [u8])) {
    match path {
        [] => found(message),
        [number, rest @ ..] => {
            Fields(message).filter(|(it, _)| it == number).for_each(|(_, inner)| within(inner, rest, found));
        }
    }
}

/// The fields of a protobuf message that have a length, by number. Ends where it is no such message.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let tag = varint(&mut self.0)?;
            let length = match tag & 7 {
                0 => {
                    varint(&mut self.0)?;
                    continue;
                }
                1 => 8,
                2 => usize::try_from(varint(&mut self.0)?).ok()?,
                5 => 4,
                _ => return None,
            };
            let (bytes, rest) = self.0.split_at_checked(length)?;
            self.0 = rest;
            if tag & 7 == 2 {
                return Some((tag >> 3, bytes));
            }
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = bytes.len();
        [&[number << 3 | 2, (length & 0x7f) as u8 | 0x80, (length >> 7) as u8], bytes].concat()
    }

    /// A frame as etcd writes it, with numbers around what is looked for.
    fn frame(key: &str, value: &[u8]) -> Vec<u8> {
        let put = [field(1, key.as_bytes()), field(2, value), vec![3 << 3, 0x96, 1]].concat();
        let compare = field(1, &field(3, key.as_bytes()));
        let request = [vec![1 << 3, 5], field(6, &[compare, field(2, &field(2, &put))].concat())].concat();
        let entry = [vec![1 << 3, 0, 2 << 3, 2], field(4, &request)].concat();
        let record = [vec![1 << 3, 2], field(3, &entry)].concat();
        let padding = (8 - record.len() % 8) % 8;
        let mut head = record.len() as u64;
        if padding > 0 {
            head |= (0x80 | padding as u64) << 56;
        }
        [&head.to_le_bytes()[..], &record, &vec![0; padding]].concat()
    }

    #[test]
    fn writes_are_found_in_the_log_and_what_follows_them_is_not() {
        let directory = std::env::temp_dir().join(format!("nixl-transfer-stored-{}", std::process::id()));
        let log = directory.join("member/wal");
        fs::create_dir_all(&log).unwrap();
        let long = vec![7; 5000];
        let first = [frame("/registry/a", b"one"), frame("/registry/b", &long), vec![0; 4096]].concat();
        fs::write(log.join("0000.wal"), first).unwrap();
        fs::write(log.join("0001.wal"), frame("/registry/a", b"two")).unwrap();
        fs::write(log.join("0.tmp"), frame("/registry/c", b"begun")).unwrap();
        let mut seen = Vec::new();
        each(&directory, |key, value| seen.push((key.to_owned(), value.to_owned()))).unwrap();
        let expected =
            [("/registry/a", b"one".to_vec()), ("/registry/b", long), ("/registry/a", b"two".to_vec())];
        assert_eq!(seen, expected.map(|(key, value)| (key.to_owned(), value)));

        fs::write(log.join("0000.wal"), b"\x08\0\0\0\0\0\0\0not one.").unwrap();
        fs::remove_file(log.join("0001.wal")).unwrap();
        let error = each(&directory, |_, _| ()).unwrap_err().to_string();
        assert!(error.contains("has its form changed"), "{error}");
        fs::remove_dir_all(directory).unwrap();
    }
}
