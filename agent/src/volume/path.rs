//! What a path beneath a volume may look like: paths from a spec, and paths from a manifest that another node has sent.
//! Pure; whether the path leads through a symbolic link is found by the kernel, in `beneath`.

use nixl_transfer_crds::{Reason, names::RESERVED_DIRECTORY};

use crate::protocol::Failure;

/// Bytes of a path in a spec.
const MAX_SPEC_PATH: usize = 1024;
/// Bytes of one component; the limit of Linux file systems.
pub const MAX_COMPONENT: usize = 255;
/// Bytes of a whole path in one system call, without its NUL.
pub const MAX_PATH: usize = 4095;

/// A checked path relative to a volume's root: components that are names, joined by single slashes. Empty for the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VolumePath(Vec<u8>);

impl VolumePath {
    /// Checks a path from a spec. Empty components and `.` are dropped.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let refuse =
            |why: &str| Err(Failure::new(Reason::InvalidPath, format!("path {:?} {why}", shortened(text))));
        if text.len() > MAX_SPEC_PATH {
            return refuse("is longer than 1,024 bytes");
        }
        if text.starts_with('/') {
            return refuse("must be relative to the volume's root: remove the leading slash");
        }
        if text.chars().any(char::is_control) {
            return refuse("must not contain control characters");
        }
        let mut joined = Vec::with_capacity(text.len());
        for component in text.split('/').filter(|component| !component.is_empty() && *component != ".") {
            if component == ".." {
                return refuse("must not contain '..': a path cannot leave its volume");
            }
            if component.len() > MAX_COMPONENT {
                return refuse("has a component longer than 255 bytes");
            }
            push(&mut joined, component.as_bytes());
        }
        let path = Self(joined);
        path.check_not_reserved()?;
        Ok(path)
    }

    /// This path with a manifest entry's path behind it.
    pub fn join(&self, entry: &[u8]) -> Result<Self, Failure> {
        let mut joined = self.0.clone();
        if !entry.is_empty() {
            check_entry_path(entry)?;
            push(&mut joined, entry);
        }
        let path = Self(joined);
        if path.0.len() > MAX_PATH {
            let why = format!("path {} is longer than {MAX_PATH} bytes", path.display());
            return Err(Failure::new(Reason::InvalidPath, why));
        }
        path.check_not_reserved()?;
        Ok(path)
    }

    /// The directory that holds it, and its name there; `None` for the root.
    pub fn split(&self) -> Option<(VolumePath, &[u8])> {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => Some((Self(self.0[..slash].to_vec()), &self.0[slash + 1..])),
            None if self.0.is_empty() => None,
            None => Some((Self::default(), &self.0)),
        }
    }

    /// The components, from the root down.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
    }

    /// The path's bytes, `.` for the root: what a system call takes.
    pub fn as_bytes(&self) -> &[u8] {
        if self.0.is_empty() { b"." } else { &self.0 }
    }

    /// Whether it is the volume's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// For messages.
    pub fn display(&self) -> String {
        shortened(&String::from_utf8_lossy(self.as_bytes()))
    }

    fn check_not_reserved(&self) -> Result<(), Failure> {
        if self.components().next() == Some(RESERVED_DIRECTORY.as_bytes()) {
            let why = format!("{RESERVED_DIRECTORY} at a volume's root is reserved for partial files");
            return Err(Failure::new(Reason::InvalidPath, why));
        }
        Ok(())
    }
}

/// A path in a manifest: relative, names only, nothing that could lead elsewhere. Not empty.
pub fn check_entry_path(path: &[u8]) -> Result<(), Failure> {
    let why = if path.len() > MAX_PATH {
        "is longer than 4,095 bytes"
    } else if path.contains(&0) {
        "contains a NUL byte"
    } else if path.split(|byte| *byte == b'/').any(|component| matches!(component, b"" | b"." | b"..")) {
        "has a component that is no name"
    } else if path.split(|byte| *byte == b'/').any(|component| component.len() > MAX_COMPONENT) {
        "has a component longer than 255 bytes"
    } else {
        return Ok(());
    };
    let path = shortened(&String::from_utf8_lossy(path));
    Err(Failure::new(Reason::InvalidPath, format!("entry {path:?} {why}")))
}

/// Whether a symbolic link at `path` that says `target` stays inside the tree, wherever the tree is put.
///
/// A `..` behind a name is followed only when that name is one of the tree's real directories: behind a link the
/// kernel's `..` would be another directory than the one that the text suggests.
pub fn link_stays_inside(path: &[u8], target: &[u8], is_directory: impl Fn(&[u8]) -> bool) -> bool {
    if target.is_empty() || target.starts_with(b"/") || target.contains(&0) || target.len() > MAX_PATH {
        return false;
    }
    let mut at: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    at.pop();
    for component in target.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                if !at.is_empty() && !is_directory(&at.join(&b'/')) {
                    return false;
                }
                if at.pop().is_none() {
                    return false;
                }
            }
            name => at.push(name),
        }
    }
    true
}

/// At most 200 characters, for messages.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn push(joined: &mut Vec<u8>, component: &[u8]) {
    if !joined.is_empty() {
        joined.push(b'/');
    }
    joined.extend_from_slice(component);
}

#[cfg(test)]
mod tests;
