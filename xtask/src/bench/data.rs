//! Data where it is moved: memory that was touched before, and copies that are gone before the next turn.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Writes and removes a file, so that the memory beneath what is written next has been used before: on a virtual machine
/// the first touch of a page costs more than anything that is measured.
pub fn touch_memory(directory: &Path, bytes: u64) -> Result<()> {
    let path = directory.join("touched");
    let mut file = fs::File::create(&path)?;
    let block = vec![1; 1 << 20];
    for _ in 0..bytes >> 20 {
        file.write_all(&block)?;
    }
    drop(file);
    Ok(fs::remove_file(path)?)
}

pub fn remove(path: &Path) -> Result<()> {
    if path.is_dir() {
        fs::remove_dir_all(path)?
    } else {
        fs::remove_file(path)?
    }
    ensure!(!path.exists(), "{} is still there", path.display());
    Ok(())
}

/// Fails unless the machine has so much memory free: on tmpfs all data and all copies are in it.
pub fn ensure_memory(bytes: u64) -> Result<()> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let free = available(&text).context("/proc/meminfo tells nothing available")?;
    ensure!(
        free >= bytes,
        "{} MiB of memory are needed for data and copies, but {} MiB are available; --directory may name a disk",
        bytes >> 20,
        free >> 20
    );
    Ok(())
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemAvailable:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_available_is_read_in_bytes() {
        assert_eq!(available("MemFree: 1 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available("MemFree: 1 kB\n"), None);
        assert!(ensure_memory(1).is_ok() && ensure_memory(u64::MAX).is_err());
    }
}
