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

/// Points `link` to `target`; replaced by rename, so that a build beside it sees the old link or the new one.
fn set(link: &Path, target: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|present| present == target) {
        return Ok(());
    }
    let next = link.with_extension(format!("next-{}", std::process::id()));
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
        }
        assert_eq!(fs::read_dir(&tools).unwrap().count(), 3);
        fs::remove_dir_all(place).unwrap();
    }
}
