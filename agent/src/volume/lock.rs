//! Which destinations are being written, in this process. Two transfers may not write to one directory, nor one of them
//! inside the other's. No I/O; whoever waits is told of each release.

use std::path::{Component, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Volume;
use super::path::VolumePath;
use crate::protocol::Failure;

/// The table of locked destinations; clones share it.
#[derive(Clone, Debug)]
pub struct DestinationLocks(Arc<Table>);

#[derive(Debug)]
struct Table {
    held: Mutex<Vec<Held>>,
    released: watch::Sender<u64>,
}

#[derive(Debug)]
struct Held {
    number: u64,
    place: Place,
}

/// Names from the root of the file system down to the destination. Volumes may lie inside one another, so the place is
/// the real one, not the one within a volume.
type Place = Vec<Vec<u8>>;

/// A held destination, free again when dropped.
#[derive(Debug)]
pub struct DestinationLock {
    number: u64,
    table: Arc<Table>,
}

impl Default for DestinationLocks {
    fn default() -> Self {
        Self(Arc::new(Table { held: Mutex::default(), released: watch::Sender::new(0) }))
    }
}

impl DestinationLocks {
    /// Takes a destination, or gives `None` when it, something inside it, or something around it is taken.
    ///
    /// # Errors
    /// `InvalidPath`: waiting would not help.
    pub fn try_lock(&self, volume: &Volume, path: &str) -> Result<Option<DestinationLock>, Failure> {
        let place = place(volume, &volume.parse(path)?);
        let mut held = self.0.lock();
        if held.iter().any(|other| conflict(&other.place, &place)) {
            return Ok(None);
        }
        let number = held.last().map_or(0, |last| last.number + 1);
        held.push(Held { number, place });
        Ok(Some(DestinationLock { number, table: Arc::clone(&self.0) }))
    }

    /// Changes with every release; subscribe before trying, then none is missed.
    pub fn released(&self) -> watch::Receiver<u64> {
        self.0.released.subscribe()
    }
}

impl Table {
    /// Every change of the list is one call, so a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DestinationLock {
    fn drop(&mut self) {
        self.table.lock().retain(|held| held.number != self.number);
        self.table.released.send_modify(|count| *count += 1);
    }
}

fn place(volume: &Volume, path: &VolumePath) -> Place {
    let root: PathBuf = volume.canonical().to_owned();
    let above = root.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.as_encoded_bytes().to_vec()),
        _ => None,
    });
    above.chain(path.components().map(<[u8]>::to_vec)).collect()
}

fn conflict(one: &Place, other: &Place) -> bool {
    let shorter = one.len().min(other.len());
    one[..shorter] == other[..shorter]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::VolumeConfig;

    fn volume(path: &std::path::Path) -> Volume {
        let allowed_namespaces = vec!["*".to_owned()];
        Volume::open(&VolumeConfig {
            name: "v".into(),
            path: path.into(),
            read_only: false,
            allowed_namespaces,
        })
        .expect("a directory")
    }

    #[test]
    fn one_inside_another_conflicts_and_a_release_is_told() {
        let directory =
            tempfile::Builder::new().prefix("nixl-transfer-test-").tempdir().expect("temporary directory");
        std::fs::create_dir(directory.path().join("in")).expect("a directory");
        let (outer, inner) = (volume(directory.path()), volume(&directory.path().join("in")));
        let locks = DestinationLocks::default();
        let released = locks.released();
        let free = |volume: &Volume, path: &str| locks.try_lock(volume, path).expect("valid path");

        let held = free(&outer, "in/a").expect("free");
        for (volume, path) in [
            (&outer, "in/a"),
            (&outer, "in/a/b"),
            (&outer, "in"),
            (&outer, ""),
            (&inner, "./a//c"),
            (&inner, ""),
        ] {
            assert!(free(volume, path).is_none(), "{path}");
        }
        let other = free(&inner, "ab").expect("a sibling whose name only begins alike");
        assert!(!released.has_changed().expect("sender lives"));
        drop(held);
        assert!(released.has_changed().expect("sender lives"));
        assert!(free(&outer, "in/a").is_some());
        assert!(free(&outer, "in").is_none(), "the other is still held");
        drop(other);
        assert!(free(&outer, "").is_some());
        assert!(locks.try_lock(&outer, "../x").is_err());
    }
}
