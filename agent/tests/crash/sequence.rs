//! What an attempt does to files, control's part and the worker's, over a real volume.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    destination.accept(entries(), Some(manifest::totals(&entries())))?;
    Ok(destination)
}

/// What a worker does with what it gets, up to where the file could be committed.
fn store(destination: &mut Destination, opened: OpenedPartial) -> Result<StoredFile, Failure> {
    let digest = digest::of(ALGORITHM, NEW).bytes;
    if let Some(existing) = opened.existing {
        let mut standing = Vec::new();
        File::from(existing).read_to_end(&mut standing).unwrap();
        if standing == NEW {
            return Ok(StoredFile { index: INDEX, digest, identical: true });
        }
    }
    let mut partial = File::from(opened.partial);
    let have = opened.resume.map_or(0, |resume| resume.length as usize);
    partial.seek(SeekFrom::Start(have as u64)).unwrap();
    if have < CHECKPOINT {
        partial.write_all(&NEW[have..CHECKPOINT]).unwrap();
        partial.sync_data().unwrap();
        let digest = digest::of(ALGORITHM, &NEW[..CHECKPOINT]).bytes;
        destination.durable(INDEX, CHECKPOINT as u64, &digest)?;
    }
    partial.write_all(&NEW[have.max(CHECKPOINT)..]).unwrap();
    attributes::set(&partial, MODE, MTIME).unwrap();
    partial.sync_all().unwrap();
    Ok(StoredFile { index: INDEX, digest, identical: false })
}

/// A whole attempt, but for its removing what it does not need any more.
pub fn attempt(root: &Path, policy: WritePolicy) -> Result<Destination, Failure> {
    let mut destination = begin(root, policy)?;
    let opened = destination.partials(&[INDEX])?.remove(0);
    finish(&mut destination, opened)?;
    Ok(destination)
}

fn finish(destination: &mut Destination, opened: OpenedPartial) -> Result<(), Failure> {
    let stored = store(destination, opened)?;
    destination.commit(&[stored], &|| true, |_| {})?;
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

/// The attempt after a kill. What the journal says must be true of the disk; then the attempt must come to its end. Gives
/// what it could go on from.
pub fn next_attempt(root: &Path, policy: WritePolicy) -> Result<Option<u64>, Failure> {
    let mut destination = begin(root, policy)?;
    let opened = destination.partials(&[INDEX])?.remove(0);
    if let Some(Resume { length, digest }) = &opened.resume {
        let mut there = Vec::new();
        File::from(opened.partial.try_clone().unwrap()).read_to_end(&mut there).unwrap();
        assert_eq!(there.len() as u64, *length, "the partial file is longer than what is durable of it");
        assert_eq!(digest::of(ALGORITHM, &there).bytes, *digest, "the journal claims what is not there");
        assert!(NEW.starts_with(&there));
    }
    let resumed = opened.resume.as_ref().map(|resume| resume.length);
    finish(&mut destination, opened)?;
    drop(destination);
    assert_eq!(fs::read(file(root)).unwrap(), NEW);
    assert_eq!(fs::read_link(root.join("out/link")).unwrap(), Path::new("d/file"));
    let left: Vec<_> = fs::read_dir(root.join(".nixl-transfer")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(resumed)
}
