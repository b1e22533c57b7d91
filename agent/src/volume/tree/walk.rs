//! Walks a directory without recursion: one directory is open at a time, symbolic links are read and never followed.
//! Does I/O.

use std::collections::HashSet;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nixl_transfer_crds::{Reason, names::RESERVED_DIRECTORY};
use rustix::fs::{AtFlags, Dir, FileType, Mode, Stat, fstat, readlinkat, statat};
use rustix::io::Errno;

use super::{Identity, LIST, check_hard_link, directory_entry, file_entry, refused};
use crate::manifest::MAX_ENTRIES;
use crate::protocol::Failure;
use crate::protocol::entry::{Entry, EntryKind, RelativePath};
use crate::volume::beneath;
use crate::volume::filter::Filter;
use crate::volume::path::{VolumePath, link_stays_inside, shortened};

type Found = Vec<(Entry, Option<Identity>)>;

/// The entries beneath a directory, itself first, in the order of a manifest.
pub(super) fn walk(
    volume: BorrowedFd<'_>,
    base: &VolumePath,
    base_stat: &Stat,
    filter: &Filter,
    cancelled: &AtomicBool,
) -> Result<Found, Failure> {
    let mut found: Found = vec![(directory_entry(Vec::new(), base_stat), None)];
    let mut pending = vec![Vec::new()];
    while let Some(directory) = pending.pop() {
        if cancelled.load(Ordering::Relaxed) {
            return Err(Failure::new(Reason::Cancelled, "cancelled while the source was walked"));
        }
        let place = base.join(&directory)?;
        let opened = beneath::open(volume, &place, LIST, Mode::empty()).map_err(|error| vanished(&place, error))?;
        let owner = fstat(&opened).map_err(|error| beneath::failure("reading", &place, error))?.st_uid;
        let listing = Dir::read_from(&opened).map_err(|error| beneath::failure("listing", &place, error))?;
        for item in listing {
            let item = item.map_err(|error| beneath::failure("listing", &place, error))?;
            let name = item.file_name();
            // The reserved directory is ours; a source that holds it is a volume's root.
            let reserved = base.is_root() && directory.is_empty() && name.to_bytes() == RESERVED_DIRECTORY.as_bytes();
            if matches!(name.to_bytes(), b"." | b"..") || reserved {
                continue;
            }
            let mut path = directory.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            let shown = base.join(&path)?;
            let stat = statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| vanished(&shown, error))?;
            match beneath::kind(&stat) {
                FileType::Directory if filter.enters(&path) => {
                    found.push((directory_entry(path.clone(), &stat), None));
                    pending.push(path);
                }
                FileType::Directory => {}
                _ if !filter.takes(&path) => {}
                FileType::RegularFile => {
                    check_hard_link(&stat, owner, &shown)?;
                    found.push((file_entry(path, &stat), Some(Identity::of(&stat))));
                }
                FileType::Symlink => found.push((link_entry(&opened, name, path, &shown)?, None)),
                other => return Err(refused(other, &shown)),
            }
            if found.len() > MAX_ENTRIES {
                let message = format!("{} holds more than {MAX_ENTRIES} entries", base.display());
                return Err(Failure::new(Reason::InvalidSpec, message));
            }
        }
    }
    if !filter.keeps_empty_directories() {
        drop_unused_directories(&mut found);
    }
    found.sort_unstable_by(|(one, _), (other, _)| one.path.cmp(&other.path));
    if found.len() == 1 {
        let message = format!("{} holds nothing that is to be moved", base.display());
        return Err(Failure::new(Reason::SourceEmpty, message));
    }
    check_links(&found)?;
    Ok(found)
}

fn link_entry(
    directory: &OwnedFd,
    name: &std::ffi::CStr,
    path: Vec<u8>,
    shown: &VolumePath,
) -> Result<Entry, Failure> {
    let target = readlinkat(directory, name, Vec::new()).map_err(|error| vanished(shown, error))?;
    Ok(Entry { path: RelativePath(path), kind: EntryKind::Link { target: RelativePath(target.into_bytes()) } })
}

/// With `include` only those directories are moved that hold something which is.
fn drop_unused_directories(found: &mut Found) {
    let mut used: HashSet<Vec<u8>> = HashSet::new();
    for (entry, _) in found.iter().filter(|(entry, _)| !matches!(entry.kind, EntryKind::Directory { .. })) {
        let mut path = entry.path.0.as_slice();
        while let Some(slash) = path.iter().rposition(|byte| *byte == b'/') {
            path = &path[..slash];
            if !used.insert(path.to_vec()) {
                break;
            }
        }
    }
    found.retain(|(entry, _)| {
        let directory = matches!(entry.kind, EntryKind::Directory { .. });
        !directory || entry.path.0.is_empty() || used.contains(&entry.path.0)
    });
}

fn check_links(found: &Found) -> Result<(), Failure> {
    let is_directory = |path: &[u8]| {
        found
            .binary_search_by(|(entry, _)| entry.path.0.as_slice().cmp(path))
            .is_ok_and(|at| matches!(found[at].0.kind, EntryKind::Directory { .. }))
    };
    for (entry, _) in found {
        if let EntryKind::Link { target } = &entry.kind
            && !link_stays_inside(&entry.path.0, &target.0, is_directory)
        {
            let (link, to) = (shortened(&entry.path.display()), shortened(&target.display()));
            let message = format!("the link {link} -> {to} leaves the tree that is moved; leave it out with exclude");
            return Err(Failure::new(Reason::InvalidPath, message));
        }
    }
    Ok(())
}

fn vanished(path: &VolumePath, error: Errno) -> Failure {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => super::changed(path),
        other => beneath::failure("reading", path, other),
    }
}
