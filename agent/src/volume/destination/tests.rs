//! Destinations over real files; the part of the worker is played by [`Fixture::store`].

mod commits;
mod ends;
mod hostile;
mod many;
mod refusals;
mod resume;

use super::*;
use crate::protocol::StoredFile;
use crate::protocol::entry::{RelativePath, Time};
use crate::volume::{DestinationLocks, Left, VolumeConfig};
use nixl_transfer_crds::names::RESERVED_DIRECTORY;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const OLD: Time = Time { seconds: 1_000_000_000, nanoseconds: 123_456_789 };

struct Fixture {
    directory: TempDir,
    volume: Arc<Volume>,
    locks: DestinationLocks,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("nixl-transfer-destination-").tempdir().unwrap();
        fs::create_dir(directory.path().join("volume")).unwrap();
        fs::create_dir(directory.path().join("outside")).unwrap();
        let volume = Arc::new(Volume::open(&config(&directory)).unwrap());
        Self { directory, volume, locks: DestinationLocks::default() }
    }

    fn config(&self) -> VolumeConfig {
        config(&self.directory)
    }

    /// A path in the volume; what is above it is made.
    fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = self.directory.path().join("volume").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, path: &str, content: &str) -> PathBuf {
        let path = self.path(path);
        fs::write(&path, content).unwrap();
        path
    }

    fn open(&self, path: &str, policy: WritePolicy) -> Result<Destination, Failure> {
        self.open_from("a", path, policy)
    }

    fn open_from(&self, node: &str, path: &str, policy: WritePolicy) -> Result<Destination, Failure> {
        let lock = self.locks.try_lock(&self.volume, path)?.expect("free");
        Destination::open(&self.volume, path, policy, &place(), node, Algorithm::Xxh3, lock)
    }

    /// Takes a whole manifest.
    fn accept(&self, path: &str, policy: WritePolicy, entries: &[Entry]) -> Result<Destination, Failure> {
        let mut destination = self.open(path, policy)?;
        // In two parts, as it comes over the stream.
        let (first, rest) = entries.split_at(entries.len() / 2);
        destination.accept(first.to_vec(), None)?;
        assert!(!destination.manifest_complete());
        destination.accept(rest.to_vec(), Some(manifest::totals(entries)))?;
        Ok(destination)
    }

    /// All of a hop.
    fn receive(
        &self,
        path: &str,
        policy: WritePolicy,
        entries: &[Entry],
        content: &str,
    ) -> Result<Vec<Committed>, Failure> {
        let mut destination = self.accept(path, policy, entries)?;
        let indices: Vec<u32> = destination.file_indices().collect();
        let mut outcomes = Vec::new();
        for index in indices {
            let stored = store(&mut destination, index, content)?;
            outcomes.push(destination.commit_one(&stored, &|| true)?);
        }
        destination.finish(Algorithm::Xxh3, &|| true)?;
        Ok(outcomes)
    }

    /// Every path in the volume and beside it, with what a change would show in.
    fn listing(&self) -> Vec<(PathBuf, u64, u32, i64, Vec<u8>)> {
        let mut waiting = vec![self.directory.path().to_owned()];
        let mut listing = Vec::new();
        while let Some(path) = waiting.pop() {
            let stat = fs::symlink_metadata(&path).unwrap();
            let content = match stat.file_type() {
                kind if kind.is_dir() => {
                    waiting.extend(fs::read_dir(&path).unwrap().map(|item| item.unwrap().path()));
                    Vec::new()
                }
                kind if kind.is_file() => fs::read(&path).unwrap(),
                _ => Vec::new(),
            };
            // The volume's root gets the directory for partial files, so its time may change.
            let time = if path.ends_with("volume") { 0 } else { stat.mtime_nsec() };
            let ours = path.ends_with(RESERVED_DIRECTORY);
            if !ours {
                listing.push((path, stat.ino(), stat.mode(), time, content));
            }
        }
        listing.sort();
        listing
    }

    /// Where the partial file of an entry stands, if it does.
    fn partial(&self, entry: &str) -> PathBuf {
        let run = place().key().unwrap();
        let name = partial_name(entry.as_bytes());
        self.directory.path().join("volume").join(RESERVED_DIRECTORY).join(run).join(name)
    }

    fn partials(&self) -> Vec<PathBuf> {
        let Ok(tasks) = fs::read_dir(self.directory.path().join("volume").join(RESERVED_DIRECTORY)) else {
            return Vec::new();
        };
        tasks.map(|task| task.unwrap().path()).collect()
    }
}

/// One file at a time, where no more is asked for.
impl Destination {
    fn partial(&mut self, index: u32) -> Result<OpenedPartial, Failure> {
        self.partials(&[index]).map(|mut opened| opened.remove(0))
    }

    fn commit_one(&mut self, file: &StoredFile, may_commit: &MayCommit) -> Result<Committed, Failure> {
        let mut outcome = None;
        self.commit(std::slice::from_ref(file), may_commit, |committed| outcome = Some(committed))?;
        Ok(outcome.expect("told when it is done"))
    }
}

fn config(directory: &TempDir) -> VolumeConfig {
    VolumeConfig {
        name: "data".into(),
        path: directory.path().join("volume"),
        read_only: false,
        allowed_namespaces: vec!["*".into()],
    }
}

fn place() -> RunPlace {
    RunPlace { job_uid: "0f6e5c1a-uid".into(), run: 1, destination: "d".into(), node_uid: "n".into() }
}

fn directory(path: &str, mode: u32) -> Entry {
    Entry { path: RelativePath(path.into()), kind: EntryKind::Directory { mode, mtime: OLD } }
}

fn file(path: &str, size: u64) -> Entry {
    Entry {
        path: RelativePath(path.into()),
        kind: EntryKind::File { size, mode: 0o640, mtime: OLD, inode: 7 },
    }
}

fn link(path: &str, target: &str) -> Entry {
    Entry { path: RelativePath(path.into()), kind: EntryKind::Link { target: RelativePath(target.into()) } }
}

/// What a worker does with a partial file: writes, sets attributes, syncs, compares.
fn store(destination: &mut Destination, index: u32, content: &str) -> Result<StoredFile, Failure> {
    let OpenedPartial { partial, existing, .. } = destination.partial(index)?;
    let mut partial = File::from(partial);
    partial.write_all(content.as_bytes()).unwrap();
    let EntryKind::File { mode, mtime, .. } = destination.entries[index as usize].kind else {
        panic!("no file")
    };
    attributes::set(&partial, mode, mtime).unwrap();
    partial.sync_all().unwrap();
    let identical = existing.is_some_and(|standing| {
        let mut text = String::new();
        File::from(standing).read_to_string(&mut text).unwrap();
        text == content
    });
    let digest = crate::digest::of(Algorithm::Xxh3, content.as_bytes()).bytes;
    Ok(StoredFile { index, digest, identical })
}
