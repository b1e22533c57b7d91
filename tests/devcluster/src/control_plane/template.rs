//! What a new cluster holds, as etcd's data: made once for each content, kept in the user's cache, and copied into the clusters
//! after that, whose start takes half the work. Without a cache directory every cluster is made from nothing.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{ControlPlaneOptions, seed};

/// Zeros of this length are left out: etcd allocates much more than it uses.
const BLOCK: usize = 1 << 20;

/// Where the data for this content are, or would be.
#[derive(Debug)]
pub(super) struct Template(PathBuf);

impl Template {
    /// `None` without a cache, or when a manifest cannot be read, which kubectl will say better.
    pub(super) fn of(options: &ControlPlaneOptions) -> Option<Self> {
        let mut key = DefaultHasher::new();
        for program in [&options.assets.etcd, &options.assets.kube_apiserver] {
            fs::canonicalize(program).ok()?.hash(&mut key);
        }
        seed::objects(options).to_string().hash(&mut key);
        let manifests = &options.manifests;
        for path in manifests.crds.iter().chain(&manifests.rbac).chain(&manifests.others) {
            hash_files(path, &mut key).ok()?;
        }
        let cache = crate::tool_paths::cache()?.join("control-plane");
        Some(Self(cache.join(format!("{:016x}", key.finish()))))
    }

    /// Copies the data to where etcd will look for them. False when there are none; then nothing is there.
    pub(super) fn copy_to(&self, data: &Path) -> bool {
        let copied = self.0.is_dir() && copy(&self.0, data).is_ok();
        if !copied {
            // Half of it would be worse than nothing.
            let _ = fs::remove_dir_all(data.join("member"));
        }
        copied
    }

    /// Keeps the data of an etcd that has ended, instead of those of another content. That somebody was faster, or that there is
    /// no room, costs time and nothing else.
    pub(super) fn keep(&self, data: &Path) {
        let Some(parent) = self.0.parent() else { return };
        // Several clusters of this process may be the first at once, each with data of its own.
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let beside = parent.join(format!("new-{}-{number}", std::process::id()));
        let others: Vec<PathBuf> =
            fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        let kept =
            private(&beside).and_then(|()| copy(data, &beside)).and_then(|()| fs::rename(&beside, &self.0));
        for old in others.iter().filter(|other| **other != self.0 && is_old(other)) {
            // Out of the way first: who copies from it then finds that out.
            let gone = beside.with_extension("old");
            let _ = fs::rename(old, &gone).and_then(|()| fs::remove_dir_all(&gone));
        }
        if kept.is_err() {
            let _ = fs::remove_dir_all(&beside);
        }
    }
}

/// Nobody copies from it any more.
fn is_old(path: &Path) -> bool {
    let changed = fs::metadata(path).and_then(|found| found.modified()).ok();
    changed.and_then(|at| at.elapsed().ok()).is_some_and(|age| age.as_secs() > 3600)
}

fn hash_files(path: &Path, key: &mut impl Hasher) -> io::Result<()> {
    if path.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path)?.collect::<io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        return entries.iter().try_for_each(|entry| hash_files(&entry.path(), key));
    }
    path.file_name().hash(key);
    fs::read(path)?.hash(key);
    Ok(())
}

fn private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Copies a directory into another, without what etcd has only begun.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let (from, name) = {
            let entry = entry?;
            (entry.path(), entry.file_name())
        };
        let to = to.join(&name);
        if from.is_dir() {
            private(&to)?;
            copy(&from, &to)?;
        } else if !name.to_string_lossy().ends_with(".tmp") {
            copy_file(&from, &to)?;
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let mut block = vec![0; BLOCK];
    loop {
        let length = source.read(&mut block)?;
        let piece = &block[..length];
        if piece.is_empty() {
            break;
        }
        if piece.iter().any(|byte| *byte != 0) {
            target.write_all(piece)?;
        } else {
            target.seek(SeekFrom::Current(length as i64))?;
        }
    }
    target.set_len(source.stream_position()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_same_bytes_holes_and_all_and_nothing_that_was_only_begun() {
        let directory = std::env::temp_dir().join(format!("nixl-transfer-template-{}", std::process::id()));
        let (from, to) = (directory.join("from"), directory.join("to"));
        private(&from.join("member/wal")).unwrap();
        private(&to).unwrap();
        let mut bytes = vec![0; 3 * BLOCK + 5];
        (bytes[7], bytes[2 * BLOCK]) = (1, 2);
        fs::write(from.join("member/wal/0.wal"), &bytes).unwrap();
        fs::write(from.join("member/wal/1.tmp"), "begun").unwrap();
        copy(&from, &to).unwrap();
        assert!(fs::read(to.join("member/wal/0.wal")).unwrap() == bytes);
        assert_eq!(fs::read_dir(to.join("member/wal")).unwrap().count(), 1);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn of_several_who_keep_at_once_one_whole_copy_is_kept() {
        let directory = std::env::temp_dir().join(format!("nixl-transfer-keepers-{}", std::process::id()));
        let names: Vec<String> = (0..200).map(|number| format!("member/{number}")).collect();
        let sources: Vec<PathBuf> = (0..4).map(|number| directory.join(format!("data-{number}"))).collect();
        for source in &sources {
            private(&source.join("member")).unwrap();
            names.iter().for_each(|name| fs::write(source.join(name), "all").unwrap());
        }
        let template = Template(directory.join("cache/key"));
        std::thread::scope(|scope| {
            for source in &sources {
                scope.spawn(|| template.keep(source));
            }
        });
        let to = directory.join("to");
        private(&to).unwrap();
        assert!(template.copy_to(&to));
        assert!(names.iter().all(|name| fs::read(to.join(name)).unwrap() == b"all"));
        assert_eq!(fs::read_dir(directory.join("cache")).unwrap().count(), 1, "nothing half is left");
        fs::remove_dir_all(directory).unwrap();
    }
}
