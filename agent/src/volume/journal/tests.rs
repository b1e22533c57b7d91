//! The journal as bytes on disk: what comes back, and what damage does to it.

use super::*;
use crate::protocol::entry::Time;
use crate::volume::identity::{Identity, Unnamed};
use proptest::prelude::*;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

const ALGORITHM: Algorithm = Algorithm::Xxh3;

struct Fixture {
    directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { directory: tempfile::Builder::new().prefix("nixl-transfer-journal-").tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join(JOURNAL)
    }

    fn open(&self, node: &str) -> (Journal, Book) {
        let directory = OwnedFd::from(File::open(self.directory.path()).unwrap());
        Journal::open(&directory, ALGORITHM, node).unwrap().expect("free")
    }

    /// What the next attempt would read, without changing anything.
    fn says(&self) -> Vec<(Vec<u8>, Page)> {
        sorted(read(&File::open(self.path()).unwrap(), ALGORITHM).0)
    }
}

fn sorted(book: Book) -> Vec<(Vec<u8>, Page)> {
    let mut pages: Vec<_> = book.pages.into_iter().filter(|(_, page)| *page != Page::default()).collect();
    pages.sort_by(|(one, _), (other, _)| one.cmp(other));
    pages
}

fn time() -> impl Strategy<Value = Time> {
    (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanoseconds)| Time { seconds, nanoseconds })
}

/// Few paths, so that records meet.
fn record() -> impl Strategy<Value = Record> {
    let path = || prop_oneof![Just(Vec::new()), Just(b"a".to_vec()), Just(b"\xff/\0".to_vec())];
    let source = || {
        (any::<u64>(), time(), any::<u64>()).prop_map(|(size, mtime, inode)| SourceFile {
            size,
            mtime,
            inode,
        })
    };
    let unnamed = || {
        (any::<u64>(), any::<u64>(), any::<u64>(), time())
            .prop_map(|(device, inode, size, modified)| Unnamed { device, inode, size, modified })
    };
    let digest = || prop::collection::vec(any::<u8>(), 0..33);
    prop_oneof![
        prop_oneof![Just("a"), Just("b")]
            .prop_map(|node| Record::Header { algorithm: ALGORITHM, source_node: node.into() }),
        (path(), source(), any::<u64>(), digest())
            .prop_map(|(path, source, length, digest)| Record::Durable { path, source, length, digest }),
        (path(), unnamed()).prop_map(|(path, file)| Record::Naming { path, file }),
        (path(), source(), unnamed(), time(), digest()).prop_map(|(path, source, file, changed, digest)| {
            let Unnamed { device, inode, size, modified } = file;
            Record::Committed {
                path,
                source,
                file: Identity { device, inode, size, modified, changed },
                digest,
            }
        }),
        path().prop_map(|path| Record::Forgotten { path }),
    ]
}

fn durable(path: &str, length: u64) -> Record {
    let source = SourceFile { size: 9, mtime: Time { seconds: 1, nanoseconds: 2 }, inode: 3 };
    Record::Durable { path: path.into(), source, length, digest: vec![4; 16] }
}

fn book(records: &[Record]) -> Book {
    let mut book = Book::default();
    for record in records {
        assert!(book.take(record.clone(), ALGORITHM));
    }
    book
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_read_back(record in record()) {
        prop_assert_eq!(Record::decode(&record.encode()), Some(record.clone()));
        let mut longer = record.encode();
        longer.push(0);
        prop_assert_eq!(Record::decode(&longer), None);
    }

    #[test]
    fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(record) = Record::decode(&bytes) {
            prop_assert_eq!(record.encode(), bytes);
        }
    }

    #[test]
    fn what_was_appended_comes_back_also_when_it_was_written_anew(
        records in prop::collection::vec(record(), 0..30), above in prop_oneof![Just(u64::MAX), 0..2000_u64],
    ) {
        let fixture = Fixture::new();
        let (mut journal, _) = fixture.open("a");
        let header = Record::Header { algorithm: ALGORITHM, source_node: "a".into() };
        let mut all = vec![header.clone()];
        for record in &records {
            journal.compact_above(above);
            journal.append(record);
            all.push(record.clone());
            // Written anew it speaks of its own node again, as it does in the agent, where headers come first only.
            if matches!(record, Record::Header { .. }) {
                journal.append(&header);
                all.push(header.clone());
            }
        }
        drop(journal);
        let (_, read) = fixture.open("a");
        prop_assert_eq!(sorted(read), sorted(book(&all)));
        prop_assert!(!fixture.directory.path().join(ANEW).exists());
    }
}

#[test]
fn torn_at_any_byte_or_flipped_it_says_what_came_before_and_goes_on_from_there() {
    let fixture = Fixture::new();
    let (mut journal, _) = fixture.open("a");
    let records: Vec<Record> = (0..6).map(|number| durable(&format!("file {number}"), number)).collect();
    let mut ends = vec![journal.length];
    for record in &records {
        journal.append(record);
        ends.push(journal.length);
    }
    drop(journal);
    let whole = fs::read(fixture.path()).unwrap();
    assert_eq!(*ends.last().unwrap(), whole.len() as u64);
    let header = Record::Header { algorithm: ALGORITHM, source_node: "a".into() };
    let expected = |good: u64| {
        let count = ends.iter().filter(|end| **end <= good).count();
        let mut all = vec![header.clone()];
        all.extend(records[..count.saturating_sub(1)].iter().cloned());
        if count == 0 { Vec::new() } else { sorted(book(&all)) }
    };
    for at in 0..whole.len() {
        let torn = whole[..at].to_vec();
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        let mut zeroed = whole.clone();
        zeroed[at..].fill(0);
        // A zero that was one before is no damage.
        let from = whole[at..].iter().position(|byte| *byte != 0).map_or(whole.len(), |ahead| at + ahead);
        for (bytes, good) in [(torn, at), (flipped, at), (zeroed, from)] {
            fs::write(fixture.path(), &bytes).unwrap();
            assert_eq!(fixture.says(), expected(good as u64), "damaged at {at}");
            // The next writer goes on behind what is good.
            let (mut journal, _) = fixture.open("a");
            journal.append(&durable("later", 5));
            drop(journal);
            assert!(fixture.says().iter().any(|(path, _)| path == b"later"), "damaged at {at}");
        }
    }
}

/// Even where a record of the same length takes the damaged one's place.
#[test]
fn what_came_behind_the_damage_never_comes_back() {
    let fixture = Fixture::new();
    let (mut journal, _) = fixture.open("a");
    journal.append(&durable("1", 1));
    let at = journal.length as usize;
    journal.append(&durable("2", 2));
    journal.append(&durable("3", 3));
    drop(journal);
    let mut bytes = fs::read(fixture.path()).unwrap();
    bytes[at] ^= 1;
    fs::write(fixture.path(), bytes).unwrap();
    let (mut journal, _) = fixture.open("a");
    journal.append(&durable("4", 4));
    drop(journal);
    let paths: Vec<_> = fixture.says().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, [b"1", b"4"]);
}

#[test]
fn another_node_goes_on_and_another_algorithm_begins_anew() {
    let fixture = Fixture::new();
    let (mut journal, _) = fixture.open("a");
    journal.append(&durable("one", 1));
    drop(journal);
    let (mut journal, _) = fixture.open("b");
    journal.append(&durable("two", 2));
    journal.compact().unwrap();
    journal.append(&durable("three", 3));
    drop(journal);
    let (_, read) = fixture.open("c");
    let node = |path: &str| read.pages[path.as_bytes()].durable.as_ref().unwrap().source.node.to_string();
    assert_eq!([node("one"), node("two"), node("three")], ["a", "b", "b"]);
    let directory = OwnedFd::from(File::open(fixture.directory.path()).unwrap());
    let (journal, read) = Journal::open(&directory, Algorithm::Blake3, "a").unwrap().unwrap();
    assert!(!read.is_useful());
    drop(journal);
    assert_eq!(fixture.says(), [], "of another algorithm now");
}

#[test]
fn one_process_at_a_time_also_when_it_is_written_anew() {
    let fixture = Fixture::new();
    let directory = OwnedFd::from(File::open(fixture.directory.path()).unwrap());
    let (mut journal, _) = fixture.open("a");
    assert!(Journal::open(&directory, ALGORITHM, "a").unwrap().is_none());
    journal.append(&durable("one", 1));
    journal.compact().unwrap();
    assert!(Journal::open(&directory, ALGORITHM, "a").unwrap().is_none());
    drop(journal);
    assert!(Journal::open(&directory, ALGORITHM, "a").unwrap().is_some());
}

#[test]
fn its_length_is_bounded_by_what_it_has_to_say() {
    let fixture = Fixture::new();
    let (mut journal, _) = fixture.open("a");
    journal.append(&durable("file", 0));
    let one = journal.length;
    for length in 1..100 {
        journal.compact_above(10 * one);
        journal.append(&durable("file", length));
        assert!(journal.length <= 11 * one, "{} bytes", journal.length);
    }
    drop(journal);
    assert_eq!(fixture.says()[0].1.durable.as_ref().unwrap().length, 99);
}

#[test]
fn what_is_called_written_is_read_also_when_there_was_no_room_for_the_header() {
    let fixture = Fixture::new();
    let (mut journal, _) = fixture.open("a");
    // As if the disk had been full when it was opened.
    journal.file.set_len(0).unwrap();
    (journal.length, journal.headed) = (0, false);
    let good = journal.file.try_clone().unwrap();
    journal.fill();
    assert!(journal.write(&durable("x", 5)).is_err() && !journal.is_useful());
    journal.file = good;
    journal.write(&durable("y", 6)).unwrap();
    assert!(journal.is_useful());
    let paths: Vec<Vec<u8>> = fixture.says().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, [b"y"]);
}
