//! The files of an image with one of our programs: the program without debug information, the system's libraries that it
//! needs, NIXL in /opt/nixl for the agent, and the little of /etc that a C library looks for.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{USER, libraries};
use crate::exec;

pub fn write(root: &Path, program: &Path, nixl: Option<&Path>) -> Result<()> {
    ensure!(program.is_file(), "{} is missing: it is not built", program.display());
    for directory in ["usr/bin", "usr/lib", "usr/lib64", "etc", "tmp", "var/tmp", "opt"] {
        fs::create_dir_all(root.join(directory))?;
    }
    for link in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{link}"), root.join(link))?;
    }
    for directory in ["tmp", "var/tmp"] {
        fs::set_permissions(root.join(directory), fs::Permissions::from_mode(0o1777))?;
    }
    let line = |name: &str, id: u32| format!("{name}:x:{id}:{id}:{name}:/:/sbin/nologin\n");
    fs::write(root.join("etc/passwd"), line("root", 0) + &line("nonroot", USER))?;
    fs::write(root.join("etc/group"), format!("root:x:0:\nnonroot:x:{USER}:\n"))?;
    fs::write(root.join("etc/nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files dns\n")?;

    let name = program.file_name().context("a program without a name")?;
    let copy = root.join("usr/bin").join(name);
    let mut strip = Command::new("strip");
    exec::watched(strip.args(["--strip-debug", "-o"]).arg(&copy).arg(program), |_| {})
        .context("strip is a part of the package binutils")?;
    let mut files = vec![copy];
    if let Some(nixl) = nixl {
        let nixl = nixl.canonicalize().context("NIXL is missing: run `cargo xtask tools`")?;
        copy_nixl(&nixl, &root.join("opt/nixl"), &mut files)?;
    }
    for library in libraries::of(&files, root)? {
        let to = place(root, &library);
        fs::create_dir_all(to.parent().unwrap_or(root))?;
        fs::copy(&library, &to).with_context(|| format!("cannot copy {}", library.display()))?;
    }
    Ok(())
}

/// /lib is /usr/lib, in the image too.
fn place(root: &Path, library: &Path) -> PathBuf {
    let path = library.strip_prefix("/").unwrap_or(library);
    if path.starts_with("usr") { root.join(path) } else { root.join("usr").join(path) }
}

/// Libraries, plugins and licences; not the wheel's Python module, headers and examples.
fn copy_nixl(from: &Path, to: &Path, libraries: &mut Vec<PathBuf>) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, target) = (entry.file_name(), to.join(entry.file_name()));
        if entry.file_type()?.is_symlink() {
            symlink(fs::read_link(entry.path())?, target)?;
        } else if name.to_str().is_some_and(|name| name.ends_with(".libs") || name.ends_with(".dist-info")) {
            copy_tree(&entry.path(), &target, libraries)?;
        }
    }
    Ok(())
}

/// Links stay links: the libraries find each other by relative paths. Adds every library to `libraries`.
fn copy_tree(from: &Path, to: &Path, libraries: &mut Vec<PathBuf>) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, target)?;
        } else if kind.is_dir() {
            copy_tree(&entry.path(), &target, libraries)?;
        } else {
            fs::copy(entry.path(), &target)?;
            if entry.file_name().to_string_lossy().contains(".so") {
                libraries.push(target);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_runs_in_a_root_of_these_files() {
        let place = std::env::temp_dir().join(format!("nixl-transfer-root-{}", std::process::id()));
        let root = place.join("root");
        let program = Path::new("/bin/echo").canonicalize().unwrap();
        write(&root, &program, None).unwrap();
        assert!(fs::metadata(root.join("tmp")).unwrap().permissions().mode() & 0o1777 == 0o1777);
        assert!(fs::read_to_string(root.join("etc/passwd")).unwrap().contains("65532"));
        if rustix::process::geteuid().is_root() {
            let name = program.file_name().unwrap();
            let inside =
                Command::new("chroot").arg(&root).arg(Path::new("/usr/bin").join(name)).arg("here").output();
            assert_eq!(String::from_utf8_lossy(&inside.unwrap().stdout), "here\n");
        }
        assert!(write(&place.join("other"), Path::new("/no/program"), None).is_err());
        fs::remove_dir_all(place).unwrap();
    }
}
