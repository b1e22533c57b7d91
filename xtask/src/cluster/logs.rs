//! What a cluster that failed has to say: its logs outlive it, below `target`.

use std::fs;
use std::path::{Path, PathBuf};

use super::record::Place;
use crate::paths;

/// Copies all logs. That there are none, or no space for them, must not hide why they were wanted.
pub fn keep(place: &Place) {
    let kept = paths::root().join("target/cluster-logs");
    let _ = fs::remove_dir_all(&kept);
    let mut copied = 0;
    for log in logs(&place.path().join("spaces")) {
        let to = log.strip_prefix(place.path()).map(|name| kept.join(name)).unwrap_or_default();
        let made = to.parent().is_some_and(|parent| fs::create_dir_all(parent).is_ok());
        copied += usize::from(made && fs::copy(&log, &to).is_ok());
    }
    if copied > 0 {
        eprintln!("  logs are in {}", kept.display());
    }
}

/// Those of the spaces' programs.
fn logs(spaces: &Path) -> Vec<PathBuf> {
    let read =
        |directory: &Path| fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let of_space = |space: PathBuf| read(&space).collect::<Vec<_>>();
    let is_log = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "log");
    read(spaces).flat_map(of_space).filter(is_log).collect()
}
