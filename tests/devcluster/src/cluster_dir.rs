//! The directory of one cluster: owned by a lock, with a list of its processes, so that a later run can clear up after an
//! owner that was killed. Never ends a process whose pid was given to somebody else.

use std::fs::{self, DirBuilder, File};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::process_table;

const LOCK: &str = "lock";
const KEPT: &str = "kept";
const PIDS: &str = "pids.json";

/// A cluster's directory. Removed when dropped, unless it is kept.
#[derive(Debug)]
pub struct ClusterDir {
    path: PathBuf,
    registry: Arc<Registry>,
    /// Held for the life of the owner: the kernel releases it however the owner ends.
    _lock: File,
    keep: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    name: String,
    pid: i32,
    start_time: u64,
}

/// The cluster's processes, mirrored to `pids.json`.
#[derive(Debug)]
pub(crate) struct Registry {
    file: PathBuf,
    entries: Mutex<Vec<Entry>>,
}

impl ClusterDir {
    /// A new directory `<parent>/<prefix>-<random>`, after the directories there whose owners are gone have been collected.
    pub fn create(parent: &Path, prefix: &str) -> Result<Self> {
        private_dir(parent)?;
        refuse_foreign(parent)?;
        collect(parent, prefix);
        let path = parent.join(format!("{prefix}-{}", random_hex(6)?));
        private_dir(&path)?;
        let lock = File::create(path.join(LOCK))?;
        lock.lock().with_context(|| format!("lock of {}", path.display()))?;
        let registry = Arc::new(Registry { file: path.join(PIDS), entries: Mutex::new(Vec::new()) });
        Ok(Self { path, registry, _lock: lock, keep: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the directory, with logs and data, when this handle is dropped; its processes end all the same, and a later
    /// [`ClusterDir::create`] beside it removes it.
    pub fn keep_files(&mut self) {
        self.keep = true;
    }

    /// Marks the cluster as kept: no later run collects it, only [`end`].
    pub(crate) fn keep_running(&mut self) -> Result<()> {
        self.keep = true;
        File::create(self.path.join(KEPT)).map(drop).context("cannot mark the cluster as kept")
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }
}

impl Drop for ClusterDir {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed now is collected by the next run.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

impl Registry {
    pub(crate) fn add(&self, name: &str, pid: i32) -> Result<()> {
        let start_time = process_table::look_up(pid).map_or(0, |process| process.start_time);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push(Entry { name: name.to_owned(), pid, start_time });
        self.write(&entries)
    }

    pub(crate) fn remove(&self, pid: i32) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| entry.pid != pid);
        // A stale line is harmless: its start time no longer fits any process.
        let _ = self.write(&entries);
    }

    fn write(&self, entries: &[Entry]) -> Result<()> {
        let next = self.file.with_extension("next");
        fs::write(&next, serde_json::to_vec(entries)?).context("cannot write the list of processes")?;
        Ok(fs::rename(next, &self.file)?)
    }
}

/// Removes the clusters under `parent` whose owner is gone. What cannot be read is left alone.
fn collect(parent: &Path, prefix: &str) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(&format!("{prefix}-")));
        let Some(lock) = ours.then(|| File::open(path.join(LOCK)).ok()).flatten() else { continue };
        if lock.try_lock().is_ok() && !path.join(KEPT).exists() {
            end(&path);
        }
    }
}

/// Ends the processes that the cluster at `path` recorded, with their groups, and removes the directory.
pub(crate) fn end(path: &Path) {
    let list = fs::read(path.join(PIDS)).unwrap_or_default();
    let entries: Vec<Entry> = serde_json::from_slice(&list).unwrap_or_default();
    let table = process_table::all();
    for victim in victims(&entries, &table, |pid| works_in(pid, path)) {
        if let Some(pid) = Pid::from_raw(victim) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    let _ = fs::remove_dir_all(path);
}

/// The recorded processes that still are what they were, and what works beside them: same group, a directory of this cluster.
fn victims(
    entries: &[Entry],
    table: &[process_table::ProcessInfo],
    works_here: impl Fn(i32) -> bool,
) -> Vec<i32> {
    let leader =
        |pid: i32, start: u64| entries.iter().any(|entry| entry.pid == pid && entry.start_time == start);
    let member = |group: i32| entries.iter().any(|entry| entry.pid == group);
    table
        .iter()
        .filter(|process| {
            leader(process.pid, process.start_time) || (member(process.group) && works_here(process.pid))
        })
        .map(|process| process.pid)
        .collect()
}

fn works_in(pid: i32, directory: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(directory))
}

/// Creates a directory that only this user can read: it holds tokens.
pub(crate) fn private_dir(path: &Path) -> Result<()> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.with_context(|| format!("cannot create {}", path.display()))
}

/// In a directory of another user that user could put other files in the place of ours.
fn refuse_foreign(parent: &Path) -> Result<()> {
    let owner = fs::metadata(parent)?.uid();
    let me = rustix::process::geteuid().as_raw();
    ensure!(owner == me, "{} belongs to another user (uid {owner})", parent.display());
    Ok(())
}

/// `bytes` random bytes in hexadecimal.
pub(crate) fn random_hex(bytes: usize) -> Result<String> {
    let mut buffer = vec![0; bytes];
    File::open("/dev/urandom")?.read_exact(&mut buffer)?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process_table::ProcessInfo;

    fn process(pid: i32, group: i32, start_time: u64) -> ProcessInfo {
        ProcessInfo { pid, parent: 1, group, start_time, state: 'S', arguments: vec![] }
    }

    #[test]
    fn a_reused_pid_is_spared() {
        let entries = [Entry { name: "etcd".into(), pid: 10, start_time: 100 }];
        assert_eq!(victims(&entries, &[process(10, 10, 100)], |_| false), [10]);
        assert_eq!(victims(&entries, &[process(10, 10, 101)], |_| false), [] as [i32; 0]);
        assert_eq!(victims(&entries, &[process(11, 10, 300), process(12, 10, 300)], |pid| pid == 12), [12]);
        assert_eq!(victims(&entries, &[process(11, 9, 100)], |_| true), [] as [i32; 0]);
    }

    #[test]
    fn a_dead_owners_directory_is_collected_and_a_live_one_is_not() {
        let parent =
            std::env::temp_dir().join(format!("nixl-transfer-devcluster-{}", random_hex(4).unwrap()));
        let live = ClusterDir::create(&parent, "unit").unwrap();
        let dead = parent.join("unit-dead");
        fs::create_dir(&dead).unwrap();
        File::create(dead.join(LOCK)).unwrap();
        let foreign = parent.join("other-thing");
        fs::create_dir(&foreign).unwrap();
        let second = ClusterDir::create(&parent, "unit").unwrap();
        assert!(live.path().exists() && second.path().exists() && foreign.exists() && !dead.exists());
        drop((live, second));
        fs::remove_dir(&foreign).unwrap();
        fs::remove_dir(&parent).unwrap(); // empty: both removed themselves
    }
}
