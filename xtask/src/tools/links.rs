//! `.tools` in the checkout: links with stable names, so that `.cargo/config.toml` and plain `cargo test` find the tools.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub fn link(tools: &Path, nixl: &Path, libclang: &Path, programs: &[PathBuf]) -> Result<()> {
    let bin = tools.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("cannot create {}", bin.display()))?;
    set(&tools.join("nixl"), nixl)?;
    set(&tools.join("libclang"), libclang)?;
    for program in programs {
        set(&bin.join(program.file_name().context("a program without a name")?), program)?;
    }
    Ok(())
}

/// `python/nixl-<version>`: a directory for PYTHONPATH.
pub fn link_python(tools: &Path, nixl: &str, peer: &Path) -> Result<()> {
    let python = tools.join("python");
    fs::create_dir_all(&python).with_context(|| format!("cannot create {}", python.display()))?;
    set(&python.join(format!("nixl-{nixl}")), peer)
}

/// Points `link` to `target`; replaced by rename, so that a build beside it sees the old link or the new one.
fn set(link: &Path, target: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|present| present == target) {
        return Ok(());
    }
    let mut next = link.as_os_str().to_owned();
    next.push(format!(".next-{}", std::process::id()));
    let next = PathBuf::from(next);
    symlink(target, &next).with_context(|| format!("cannot link {}", link.display()))?;
    fs::rename(&next, link).with_context(|| format!("cannot link {}", link.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_made_and_moved() {
        let place = std::env::temp_dir().join(format!("nixl-transfer-links-{}", std::process::id()));
        let tools = place.join(".tools");
        for version in ["1", "2"] {
            let cache = place.join(version);
            let programs = [cache.join("etcd")];
            link(&tools, &cache.join("nixl"), &cache.join("libclang"), &programs).unwrap();
            assert_eq!(fs::read_link(tools.join("bin/etcd")).unwrap(), programs[0]);
            assert_eq!(fs::read_link(tools.join("nixl")).unwrap(), cache.join("nixl"));
            link_python(&tools, "1.5.1", &cache.join("peer")).unwrap();
            assert_eq!(fs::read_link(tools.join("python/nixl-1.5.1")).unwrap(), cache.join("peer"));
        }
        assert_eq!(fs::read_dir(&tools).unwrap().count(), 4);
        fs::remove_dir_all(place).unwrap();
    }
}
