//! What an attempt does to files, control's part and the worker's, over a real volume.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nixl_transfer_crds::{Algorithm, WritePolicy};
use transfer_agent::protocol::entry::{Entry, EntryKind, RelativePath, Time};
use transfer_agent::protocol::{Failure, StoredFile};
use transfer_agent::volume::destination::attributes;
use transfer_agent::volume::{
    Destination, DestinationLocks, Keep, OpenedPartial, Resume, RunPlace, Volume, VolumeConfig,
};
use transfer_agent::{digest, manifest};

pub const OLD: &[u8] = b"what stood there before";
pub const NEW: &[u8] = b"the first part, made durable; then the rest of it";
/// Bytes that are made durable before the rest is written.
const CHECKPOINT: usize = 29;
const MTIME: Time = Time { seconds: 1_000_000_000, nanoseconds: 7 };
const MODE: u32 = 0o640;
/// Place of the file in the manifest.
const INDEX: u32 = 2;
/// As long as a file takes where threads are worth it.
const SLOW: Duration = Duration::from_millis(20);
const ALGORITHM: Algorithm = Algorithm::Xxh3;

/// Where the file is to stand.
pub fn file(root: &Path) -> PathBuf {
    root.join("out/d/file")
}

fn entries() -> Vec<Entry> {
    let entry = |path: &str, kind| Entry { path: RelativePath(path.into()), kind };
    let size = NEW.len() as u64;
    vec![
        entry("", EntryKind::Directory { mode: 0o755, mtime: MTIME }),
        entry("d", EntryKind::Directory { mode: 0o755, mtime: MTIME }),
        entry("d/file", EntryKind::File { size, mode: MODE, mtime: MTIME, inode: 1 }),
        entry("link", EntryKind::Link { target: RelativePath("d/file".into()) }),
    ]
}

fn begin(root: &Path, policy: WritePolicy) -> Result<Destination, Failure> {
    begin_with(root, policy, entries())
}

fn begin_with(root: &Path, policy: WritePolicy, entries: Vec<Entry>) -> Result<Destination, Failure> {
    let config = VolumeConfig {
        name: "data".into(),
        path: root.into(),
        read_only: false,
        allowed_namespaces: vec!["*".into()],
    };
    let volume = Arc::new(Volume::open(&config)?);
    let lock = DestinationLocks::default().try_lock(&volume, "out")?.expect("a table of its own");
    let place = RunPlace { job_uid: "uid".into(), run: 1, destination: "d".into(), node_uid: "node".into() };
    let mut destination = Destination::open(&volume, "out", policy, &place, "a", ALGORITHM, lock)?;
    let totals = manifest::totals(&entries);
    destination.accept(entries, Some(totals))?;
    Ok(destination)
}

/// What a worker does with what it gets, up to where the file could be committed.
fn store(destination: &mut Destination, index: u32, opened: OpenedPartial) -> Result<StoredFile, Failure> {
    let digest = digest::of(ALGORITHM, NEW).bytes;
    if let Some(existing) = opened.existing {
        let mut standing = Vec::new();
        File::from(existing).read_to_end(&mut standing).unwrap();
        if standing == NEW {
            return Ok(StoredFile { index, digest, identical: true });
        }
    }
    let mut partial = File::from(opened.partial);
    let have = opened.resume.map_or(0, |resume| resume.length as usize);
    partial.seek(SeekFrom::Start(have as u64)).unwrap();
    if have < CHECKPOINT {
        partial.write_all(&NEW[have..CHECKPOINT]).unwrap();
        partial.sync_data().unwrap();
        let digest = digest::of(ALGORITHM, &NEW[..CHECKPOINT]).bytes;
        destination.durable(index, CHECKPOINT as u64, &digest)?;
    }
    partial.write_all(&NEW[have.max(CHECKPOINT)..]).unwrap();
    attributes::set(&partial, MODE, MTIME).unwrap();
    partial.sync_all().unwrap();
    Ok(StoredFile { index, digest, identical: false })
}

/// A whole attempt, but for its removing what it does not need any more.
pub fn attempt(root: &Path, policy: WritePolicy) -> Result<Destination, Failure> {
    let mut destination = begin(root, policy)?;
    let opened = destination.partials(&[INDEX])?.remove(0);
    finish(&mut destination, opened)?;
    Ok(destination)
}

fn finish(destination: &mut Destination, opened: OpenedPartial) -> Result<(), Failure> {
    let stored = store(destination, INDEX, opened)?;
    destination.commit(&[stored], &|| true, |_| {})?;
    destination.finish(ALGORITHM, &|| true).map(drop)
}

/// Files of a report that several threads commit.
pub const MANY: u32 = 6;

/// Where one of many is to stand.
pub fn one_of_many(root: &Path, at: u32) -> PathBuf {
    root.join(format!("out/{}/{at:02}", at % 2))
}

/// The manifest of many files in two directories, and where the files are in it.
fn many() -> (Vec<Entry>, Vec<u32>) {
    let entry = |path: &str, kind| Entry { path: RelativePath(path.into()), kind };
    let mut entries = vec![entry("", EntryKind::Directory { mode: 0o755, mtime: MTIME })];
    for directory in 0..2 {
        entries.push(entry(&directory.to_string(), EntryKind::Directory { mode: 0o755, mtime: MTIME }));
        for at in (0..MANY).filter(|at| at % 2 == directory) {
            let kind = EntryKind::File { size: NEW.len() as u64, mode: MODE, mtime: MTIME, inode: at.into() };
            entries.push(entry(&format!("{directory}/{at:02}"), kind));
        }
    }
    let files = (0..).zip(&entries).filter(|(_, entry)| matches!(entry.kind, EntryKind::File { .. }));
    let files = files.map(|(index, _)| index).collect();
    (entries, files)
}

/// An attempt up to where its files are to be committed, which it reports all at once.
pub fn store_many(root: &Path, policy: WritePolicy) -> Result<(Destination, Vec<StoredFile>), Failure> {
    let (entries, files) = many();
    let mut destination = begin_with(root, policy, entries)?;
    let mut stored = Vec::new();
    for (index, opened) in files.iter().zip(destination.partials(&files)?) {
        believable(&opened);
        stored.push(store(&mut destination, *index, opened)?);
    }
    Ok((destination, stored))
}

/// The rest of it. The first file takes so long that threads are started for the others, as where a server is far away.
pub fn commit_many(destination: &mut Destination, stored: &[StoredFile]) -> Result<(), Failure> {
    let first = AtomicBool::new(true);
    let may_commit = || {
        if first.swap(false, Ordering::Relaxed) {
            std::thread::sleep(SLOW);
        }
        true
    };
    destination.commit(stored, &may_commit, |_| {})?;
    destination.finish(ALGORITHM, &|| true).map(drop)
}

/// An attempt that ends right after it has made a beginning durable and has written a little more.
pub fn broken_off(root: &Path, policy: WritePolicy) {
    let mut destination = begin(root, policy).unwrap();
    let mut partial = File::from(destination.partials(&[INDEX]).unwrap().remove(0).partial);
    partial.write_all(&NEW[..8]).unwrap();
    partial.sync_data().unwrap();
    destination.durable(INDEX, 8, &digest::of(ALGORITHM, &NEW[..8]).bytes).unwrap();
    partial.write_all(b"not NEW").unwrap();
    destination.keep(Keep::All);
}

/// The attempt after a kill, which must come to its end. Gives what it could go on from.
pub fn next_attempt(root: &Path, policy: WritePolicy) -> Result<Option<u64>, Failure> {
    let mut destination = begin(root, policy)?;
    let opened = destination.partials(&[INDEX])?.remove(0);
    believable(&opened);
    let resumed = opened.resume.as_ref().map(|resume| resume.length);
    finish(&mut destination, opened)?;
    drop(destination);
    assert_eq!(fs::read(file(root)).unwrap(), NEW);
    assert_eq!(fs::read_link(root.join("out/link")).unwrap(), Path::new("d/file"));
    nothing_is_left(root);
    Ok(resumed)
}

/// No partial file, no journal.
pub fn nothing_is_left(root: &Path) {
    let left: Vec<_> = fs::read_dir(root.join(".nixl-transfer")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// What the journal says of a partial file must be true of the disk.
fn believable(opened: &OpenedPartial) {
    if let Some(Resume { length, digest }) = &opened.resume {
        let mut there = Vec::new();
        File::from(opened.partial.try_clone().unwrap()).read_to_end(&mut there).unwrap();
        assert_eq!(there.len() as u64, *length, "the partial file is longer than what is durable of it");
        assert_eq!(digest::of(ALGORITHM, &there).bytes, *digest, "the journal claims what is not there");
        assert!(NEW.starts_with(&there));
    }
}
