//! One directory per tool and version in the user's cache. It is made beside its place under a lock and renamed into it:
//! what exists is complete, and two makers at once do the work once.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `<cache>/<name>`, made by `make` in an empty directory when it is missing.
pub fn ensure(cache: &Path, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let place = cache.join(name);
    if place.is_dir() {
        return Ok(place);
    }
    fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let lock = File::create(cache.join(format!("{name}.lock")))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("  {name} is being made by another process; waiting for it");
            lock.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the cache"),
    }
    if place.is_dir() {
        return Ok(place);
    }
    // Under the lock nobody else works here: what lies about is from a maker that was killed.
    let temporary = cache.join(format!("{name}.partial"));
    if temporary.exists() {
        fs::remove_dir_all(&temporary)?;
    }
    fs::create_dir(&temporary)?;
    make(&temporary)?;
    fs::rename(&temporary, &place).with_context(|| format!("cannot put {name} into the cache"))?;
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn made_once_by_many_and_again_after_a_failure() {
        let cache = std::env::temp_dir().join(format!("nixl-transfer-cache-{}", std::process::id()));
        assert!(ensure(&cache, "tool-1", |_| anyhow::bail!("no network")).is_err());
        let made = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let place = ensure(&cache, "tool-1", |directory| {
                        made.fetch_add(1, Ordering::SeqCst);
                        Ok(fs::write(directory.join("file"), "whole")?)
                    });
                    assert_eq!(fs::read_to_string(place.unwrap().join("file")).unwrap(), "whole");
                });
            }
        });
        assert_eq!(made.load(Ordering::SeqCst), 1);
        fs::remove_dir_all(cache).unwrap();
    }
}
