//! Real files for tests: written with a seed, and compared by an independent tool.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Writes a file of `size` bytes that no other seed gives, with its directories.
pub fn write_file(path: &Path, size: u64, seed: u64) -> Result<()> {
    fs::create_dir_all(path.parent().context("a file has a directory")?)?;
    let mut file = File::create(path).with_context(|| path.display().to_string())?;
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut block = vec![0; 1 << 20];
    let mut left = size;
    while left > 0 {
        for word in block.chunks_exact_mut(8) {
            // xorshift64: fast, and no two blocks are alike.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let part = left.min(block.len() as u64);
        file.write_all(&block[..usize::try_from(part)?])?;
        left -= part;
    }
    Ok(())
}

/// A tree with everything that a tree can have: nested and empty directories, an empty file, small files, one large
/// file, names with spaces and letters beyond ASCII, modes, an old mtime, links that stay inside.
pub fn write_tree(root: &Path, small_files: u64, large: u64) -> Result<()> {
    fs::create_dir_all(root.join("nested/deep/er"))?;
    fs::create_dir_all(root.join("empty directory"))?;
    for at in 0..small_files {
        write_file(&root.join(format!("small/{:02}/file-{at}.bin", at % 20)), 1 + at * 37 % 9_000, at)?;
    }
    write_file(&root.join("large.bin"), large, 7)?;
    write_file(&root.join("nested/deep/er/größe – 模型.txt"), 10_000, 8)?;
    write_file(&root.join("nested/name with spaces"), 3, 9)?;
    File::create(root.join("empty"))?;
    let script = root.join("nested/run.sh");
    write_file(&script, 100, 10)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o750))?;
    File::open(&script)?
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789))?;
    symlink("deep/er", root.join("nested/link-to-directory"))?;
    symlink("../large.bin", root.join("nested/link-to-file"))?;
    Ok(())
}

/// Fails unless both paths hold the same contents and links, as `diff` sees it.
pub fn assert_same_content(one: &Path, other: &Path) -> Result<()> {
    let diff = Command::new("diff").args(["-r", "--no-dereference"]).arg(one).arg(other).output()?;
    ensure!(diff.status.success(), "contents differ:\n{}", String::from_utf8_lossy(&diff.stdout));
    Ok(())
}

/// Fails unless both paths hold the same: contents and links by `diff`, then names, kinds, modes, mtimes, sizes and
/// link targets by `find`. Neither shares a line of code with what is tested.
pub fn assert_same(one: &Path, other: &Path) -> Result<()> {
    assert_same_content(one, other)?;
    let (one, other) = (listing(one)?, listing(other)?);
    ensure!(one == other, "attributes differ:\n{}", first_difference(&one, &other));
    Ok(())
}

/// One line for each entry. The mtime of links is not kept, and the size of directories is the file system's affair.
fn listing(root: &Path) -> Result<Vec<String>> {
    let format = |what: &str, kind: &str| -> Result<String> {
        let mut command = Command::new("find");
        command.arg(root);
        if kind == "!l" {
            command.args(["!", "-type", "l"])
        } else {
            command.args(["-type", kind])
        };
        let output = command.args(["-printf", what]).output()?;
        ensure!(output.status.success(), "find: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let text = format("f %P %m %T@ %s\n", "f")? + &format("d %P %m %T@\n", "d")? + &format("l %P %l\n", "l")?;
    let mut lines: Vec<String> = text.lines().map(Into::into).collect();
    lines.sort();
    Ok(lines)
}

fn first_difference(one: &[String], other: &[String]) -> String {
    let only = |a: &[String], b: &[String]| {
        a.iter().filter(|line| !b.contains(line)).take(5).cloned().collect::<Vec<_>>()
    };
    format!("only in the first: {:#?}\nonly in the second: {:#?}", only(one, other), only(other, one))
}

/// Every file, directory and link beneath a volume that is not part of what users put there.
pub fn leftovers(volume: &Path) -> Result<Vec<String>> {
    let reserved = volume.join(".nixl-transfer");
    if !reserved.exists() {
        return Ok(Vec::new());
    }
    let output = Command::new("find").arg(&reserved).args(["-mindepth", "1", "-printf", "%P\n"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(Into::into).collect())
}

/// Bytes in the partial files of a volume.
pub fn partial_bytes(volume: &Path) -> u64 {
    let Ok(tasks) = fs::read_dir(volume.join(".nixl-transfer")) else { return 0 };
    let files = tasks.filter_map(|task| fs::read_dir(task.ok()?.path()).ok()).flatten().flatten();
    let partials = files.filter(|file| file.file_name() != "journal");
    partials.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}
