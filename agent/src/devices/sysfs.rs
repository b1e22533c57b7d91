//! Reads files, links and listings beneath a root with the layout of sysfs. Paths are relative to the root and contain no
//! link: links are read and followed by name, so that nothing outside an injected root is ever looked at. Any error is `None`:
//! ENOENT and ENODEV are how a device says that it has gone, EINVAL that it does not know.

use std::{
    fs,
    io::Read,
    path::{Component, Path, PathBuf},
    str::FromStr,
};

/// The kernel gives a page at most.
const MAX_TEXT: u64 = 4096;

/// Access to a root.
pub(super) struct Sysfs<'a> {
    root: &'a Path,
}

impl<'a> Sysfs<'a> {
    pub(super) fn new(root: &'a Path) -> Self {
        Self { root }
    }

    /// A file's text without white space around it; `None` if it is empty, no UTF-8, or longer than sysfs can be.
    pub(super) fn text(&self, path: &Path) -> Option<String> {
        let mut bytes = Vec::new();
        let file = fs::File::open(self.root.join(path)).ok()?;
        file.take(MAX_TEXT + 1).read_to_end(&mut bytes).ok()?;
        if bytes.len() as u64 > MAX_TEXT {
            return None;
        }
        let text = String::from_utf8(bytes).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// A file's text as a number.
    pub(super) fn number<T: FromStr>(&self, path: &Path) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// A file's text as a number written `0x10de`.
    pub(super) fn hex(&self, path: &Path) -> Option<u32> {
        u32::from_str_radix(self.text(path)?.strip_prefix("0x")?, 16).ok()
    }

    /// Where a link leads; `None` if it is no link, or leads out of the root.
    pub(super) fn link(&self, path: &Path) -> Option<PathBuf> {
        let target = fs::read_link(self.root.join(path)).ok()?;
        let mut place = path.parent()?.to_owned();
        for component in target.components() {
            match component {
                Component::Normal(name) => place.push(name),
                Component::ParentDir => {
                    if !place.pop() {
                        return None;
                    }
                }
                Component::CurDir => {}
                Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        Some(place)
    }

    /// Names in a directory, sorted; none if it is not there.
    pub(super) fn names(&self, path: &Path) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join(path)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Whether something has this path.
    pub(super) fn exists(&self, path: &Path) -> bool {
        self.root.join(path).symlink_metadata().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_by_name_and_never_out_of_the_root() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("class/net")).unwrap();
        for (name, target, expected) in [
            ("in", "../../devices/a", Some("devices/a")),
            ("dot", "./../net/x", Some("class/net/x")),
            ("top", "../../..", None),
            ("out", "../../../../etc", None),
            ("absolute", "/etc", None),
        ] {
            let path = Path::new("class/net").join(name);
            symlink(target, root.path().join(&path)).unwrap();
            let found = Sysfs::new(root.path()).link(&path);
            assert_eq!(found.as_deref(), expected.map(Path::new), "{target}");
        }
    }

    #[test]
    fn texts_that_are_none() {
        let root = tempfile::tempdir().unwrap();
        let page = "7".repeat(MAX_TEXT as usize);
        for (content, expected) in [
            (b" 4\n".as_slice(), Some("4")),
            (b"\n", None),
            (b"\xff\xfe", None),
            (page.as_bytes(), Some(page.as_str())),
            (format!("{page}7").as_bytes(), None),
        ] {
            fs::write(root.path().join("file"), content).unwrap();
            assert_eq!(Sysfs::new(root.path()).text("file".as_ref()).as_deref(), expected);
        }
        assert_eq!(Sysfs::new(root.path()).text(Path::new("")), None, "a directory");
    }
}
