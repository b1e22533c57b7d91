//! The shared libraries of the system that programs and libraries need, by asking the loader (`ldd`). Reads only.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// As the loader looks for them. What is not found is left out: a plugin's driver library comes from the node.
pub fn of(files: &[PathBuf], without: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for file in files {
        let output = Command::new("ldd").arg(file).output().context("cannot start ldd")?;
        found.extend(paths(&String::from_utf8_lossy(&output.stdout)));
    }
    // Those that a tree brings itself are in the image with it.
    let without = without.canonicalize()?;
    found.retain(|path| path.canonicalize().is_ok_and(|path| !path.starts_with(&without)));
    Ok(found)
}

/// `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn paths(said: &str) -> Vec<PathBuf> {
    said.lines()
        .filter_map(|line| line.trim().split_once(" (0x").map(|(front, _)| front))
        .map(|front| front.split_once(" => ").map_or(front, |(_, path)| path))
        .filter(|path| path.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_what_ldd_says() {
        let said = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f3)\n\
                    \tlibcuda.so.1 => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f4)\n";
        assert_eq!(
            paths(said),
            ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from)
        );
        assert_eq!(paths("\tstatically linked\n"), [] as [PathBuf; 0]);
    }
}
