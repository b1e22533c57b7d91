//! The files that the demo moves: the same at every run. Shaped like what people move: one large file, many small ones,
//! and the names and kinds that break careless tools.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};

use crate::interrupt;

/// Below the volume `data` of the first node; the examples name it.
pub const TREE: &str = "models/llama";
const LARGE_FILE: &str = "weights/model-00001.safetensors";
const LARGE_BYTES: u64 = 300 << 20;
const SMALL_FILES: u64 = 1_000;
const BLOCK: usize = 1 << 20;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub files: u64,
    pub bytes: u64,
}

/// Writes the tree into the empty or missing directory `root`.
pub fn write(root: &Path) -> Result<Written> {
    let mut writer = Writer { root, block: random_block(), written: Written::default() };
    writer.file(LARGE_FILE, LARGE_BYTES)?;
    for number in 0..SMALL_FILES {
        // Sizes from 1 byte to 16 KiB, none a multiple of another's.
        writer
            .file(&format!("shards/{:02}/part-{number:04}.bin", number % 25), 1 + number * 7_919 % 16_384)?;
    }
    writer.file("config.json", 613)?;
    writer.file("empty.lock", 0)?;
    writer.file("notes/a name with spaces.txt", 2_048)?;
    writer.file("notes/Grüße, œuvre, данные, 数据.md", 4_097)?;
    writer.file("a/b/c/d/e/f/deep.bin", 65_537)?;
    writer.file("convert.sh", 300)?;
    fs::set_permissions(root.join("convert.sh"), fs::Permissions::from_mode(0o755))?;
    fs::create_dir_all(root.join("empty directory"))?;
    symlink(LARGE_FILE, root.join("latest.safetensors")).context("cannot write the symbolic link")?;
    Ok(writer.written)
}

/// Files of these names and sizes alone, below `root`.
pub fn write_files(root: &Path, files: impl IntoIterator<Item = (String, u64)>) -> Result<Written> {
    let mut writer = Writer { root, block: random_block(), written: Written::default() };
    for (name, size) in files {
        writer.file(&name, size)?;
    }
    Ok(writer.written)
}

struct Writer<'a> {
    root: &'a Path,
    block: Vec<u8>,
    written: Written,
}

impl Writer<'_> {
    /// Each 4 KiB carry the file's number and the place in it, so that no two pieces of the tree are the same.
    fn file(&mut self, name: &str, size: u64) -> Result<()> {
        interrupt::check()?;
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().unwrap_or(self.root))?;
        let mut file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut place = 0;
        while place < size {
            for (page, bytes) in self.block.chunks_mut(4096).enumerate() {
                bytes[..8].copy_from_slice(&self.written.files.to_le_bytes());
                bytes[8..16].copy_from_slice(&(place + 4096 * page as u64).to_le_bytes());
            }
            let part = (size - place).min(BLOCK as u64);
            file.write_all(&self.block[..part as usize])?;
            place += part;
        }
        self.written.files += 1;
        self.written.bytes += size;
        Ok(())
    }
}

/// SplitMix64 from a fixed seed: neither compressible nor different from run to run.
fn random_block() -> Vec<u8> {
    let mut state = 0x6e69_786c_u64;
    let words = std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    });
    words.take(BLOCK / 8).flat_map(u64::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_at_every_run_and_all_kinds_are_there() {
        let parent = std::env::temp_dir().join(format!("nixl-transfer-dataset-{}", std::process::id()));
        let small = |name: &str| {
            let root = parent.join(name);
            let files = [("x/one".to_owned(), 10_000), ("two".to_owned(), (BLOCK + 5) as u64)];
            assert_eq!(
                write_files(&root, files).unwrap(),
                Written { files: 2, bytes: 10_000 + BLOCK as u64 + 5 }
            );
            (fs::read(root.join("x/one")).unwrap(), fs::read(root.join("two")).unwrap())
        };
        let (first, second) = (small("a"), small("b"));
        assert!(first == second, "two runs differ");
        assert_eq!(first.1.len(), BLOCK + 5);
        assert_ne!(first.0[..16], first.1[..16]);
        fs::remove_dir_all(parent).unwrap();
    }
}
