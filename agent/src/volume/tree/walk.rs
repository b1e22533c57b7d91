//! The walk that finds what is moved, and refuses what cannot be. Names are looked at, never opened, but for the
//! directories themselves. Does I/O.

use std::collections::HashSet;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nixl_transfer_crds::{Reason, endpoint::SourceVolume, names::RESERVED_DIRECTORY};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, readlinkat, statat};
use rustix::io::Errno;

use super::SourceTree;
use crate::manifest::{self, MAX_ENTRIES, MAX_TEXT, MODE_MASK};
use crate::protocol::Failure;
use crate::protocol::entry::{Entry, EntryKind, RelativePath, Time};
use crate::volume::filter::Filter;
use crate::volume::identity::{self, Identity};
use crate::volume::path::{VolumePath, check_entry_path, link_stays_inside, shortened};
use crate::volume::{Volume, beneath};

type Found = (Entry, Option<Identity>);

pub(super) fn walk(
    volume: &Volume,
    source: &SourceVolume,
    cancelled: &AtomicBool,
) -> Result<SourceTree, Failure> {
    let walked = identity::now();
    let base = volume.parse(&source.at.path)?;
    let filter = Filter::new(source)?;
    let (_, stat) = beneath::locate(volume.root(), &base).map_err(|error| not_found(volume, &base, error))?;
    match beneath::kind(&stat) {
        FileType::RegularFile => alone(volume, base, walked),
        FileType::Directory => {
            let directory = beneath::directory(volume.root(), &base)
                .map_err(|error| volume.failure("listing", &base, error))?;
            let mut walk = Walk {
                volume,
                base: &base,
                filter,
                cancelled,
                directory: &directory,
                found: Vec::new(),
                text: 0,
            };
            walk.all()?;
            let found = walk.finish()?;
            Ok(tree(volume, base, directory, None, found, walked))
        }
        FileType::Symlink => Err(Failure::new(
            Reason::InvalidPath,
            format!(
                "{} is a symbolic link, and links are not followed: name what it points to",
                volume.place(&base)
            ),
        )),
        kind => Err(Failure::new(
            Reason::NotRegularFile,
            format!(
                "{} is {}: only regular files and directories can be moved",
                volume.place(&base),
                name_of(kind)
            ),
        )),
    }
}

/// A file that is moved by itself. Its directory is opened first and the file found in it, so that both belong together.
fn alone(volume: &Volume, base: VolumePath, walked: Time) -> Result<SourceTree, Failure> {
    let changed = |error| volume.failure("opening", &base, error);
    let (parent, name) = base.split().ok_or_else(|| changed(Errno::ISDIR))?;
    let directory = beneath::directory(volume.root(), &parent).map_err(changed)?;
    let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| not_found(volume, &base, error))?;
    if beneath::kind(&stat) != FileType::RegularFile {
        let message = format!("{} was replaced while it was looked at", volume.place(&base));
        return Err(Failure::new(Reason::SourceChanged, message));
    }
    let holder = fstat(&directory).map_err(changed)?;
    check_owner(&stat, &holder, || volume.place(&base))?;
    let found = vec![(Entry { path: RelativePath::default(), kind: file(&stat) }, Some(Identity::of(&stat)))];
    let name = name.to_vec();
    Ok(tree(volume, base, directory, Some(name), found, walked))
}

fn tree(
    volume: &Volume,
    base: VolumePath,
    directory: OwnedFd,
    alone: Option<Vec<u8>>,
    found: Vec<Found>,
    walked: Time,
) -> SourceTree {
    let (entries, identities): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    let totals = manifest::totals(&entries);
    let volume = volume.name.clone();
    SourceTree { entries, identities, totals, directory, alone, base, volume, walked, memory: None }
}

struct Walk<'a> {
    volume: &'a Volume,
    base: &'a VolumePath,
    filter: Filter,
    cancelled: &'a AtomicBool,
    directory: &'a OwnedFd,
    found: Vec<Found>,
    /// Bytes of all paths and links so far.
    text: usize,
}

impl Walk<'_> {
    fn all(&mut self) -> Result<(), Failure> {
        let mut waiting = vec![Vec::new()];
        while let Some(path) = waiting.pop() {
            self.one_directory(&path, &mut waiting)?;
        }
        Ok(())
    }

    fn one_directory(&mut self, path: &[u8], waiting: &mut Vec<Vec<u8>>) -> Result<(), Failure> {
        let failed = |error| self.vanished("listing", path, error);
        let here = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory =
            beneath::open_bytes(self.directory.as_fd(), here, flags, Mode::empty()).map_err(failed)?;
        let holder = fstat(&directory).map_err(failed)?;
        let listing = Dir::read_from(&directory).map_err(failed)?;
        let kind =
            EntryKind::Directory { mode: holder.st_mode & MODE_MASK, mtime: identity::modified(&holder) };
        self.push(path.to_vec(), kind, None)?;
        for item in listing {
            let item = item.map_err(|error| self.vanished("listing", path, error))?;
            let name = item.file_name();
            let reserved =
                path.is_empty() && self.base.is_root() && name.to_bytes() == RESERVED_DIRECTORY.as_bytes();
            if matches!(name.to_bytes(), b"." | b"..") || reserved {
                continue;
            }
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(Failure::new(Reason::Cancelled, "cancelled while the source was listed"));
            }
            let mut full = path.to_vec();
            if !full.is_empty() {
                full.push(b'/');
            }
            full.extend_from_slice(name.to_bytes());
            if !self.filter.enters(&full) {
                continue;
            }
            check_entry_path(&full)?;
            let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| self.vanished("reading", &full, error))?;
            if beneath::kind(&stat) == FileType::Directory {
                waiting.push(full);
            } else if self.filter.takes(&full) {
                self.take(full, &stat, &directory, name, &holder)?;
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        path: Vec<u8>,
        stat: &Stat,
        directory: &OwnedFd,
        name: &CStr,
        holder: &Stat,
    ) -> Result<(), Failure> {
        match beneath::kind(stat) {
            FileType::RegularFile => {
                check_owner(stat, holder, || self.place(&path))?;
                self.push(path, file(stat), Some(Identity::of(stat)))
            }
            FileType::Symlink => {
                let target = readlinkat(directory, name, Vec::new())
                    .map_err(|error| self.vanished("reading", &path, error))?
                    .into_bytes();
                self.push(path, EntryKind::Link { target: RelativePath(target) }, None)
            }
            kind => {
                let place = self.place(&path);
                let remedy = "only regular files, directories and symbolic links can be moved; remove it, or leave it out with `exclude`";
                Err(Failure::new(Reason::NotRegularFile, format!("{place} is {}: {remedy}", name_of(kind))))
            }
        }
    }

    fn push(&mut self, path: Vec<u8>, kind: EntryKind, identity: Option<Identity>) -> Result<(), Failure> {
        let entry = Entry { path: RelativePath(path), kind };
        self.text += manifest::text(&entry);
        self.found.push((entry, identity));
        if self.found.len() > MAX_ENTRIES || self.text > MAX_TEXT {
            let place = self.volume.place(self.base);
            let message = format!(
                "{place} has more than {MAX_ENTRIES} entries, or paths of more than {MAX_TEXT} bytes together: move its parts by jobs of their own"
            );
            return Err(Failure::new(Reason::InvalidSpec, message));
        }
        Ok(())
    }

    /// Leaves out directories that the filters have emptied, sorts, and checks what only the whole can show.
    fn finish(self) -> Result<Vec<Found>, Failure> {
        let Self { volume, base, filter, mut found, .. } = self;
        if !filter.keeps_empty_directories() {
            keep_ancestors(&mut found);
        }
        if found.len() <= 1 {
            let filtered = if filter.is_empty() { "" } else { " after `include` and `exclude`" };
            let message = format!("{} holds nothing to move{filtered}", volume.place(base));
            return Err(Failure::new(Reason::SourceEmpty, message));
        }
        found.sort_unstable_by(|(one, _), (other, _)| one.path.cmp(&other.path));
        let directories: HashSet<&[u8]> =
            found.iter().filter_map(|(entry, _)| directory_path(entry)).collect();
        for (entry, _) in &found {
            if let EntryKind::Link { target } = &entry.kind
                && !link_stays_inside(&entry.path.0, &target.0, |path| directories.contains(path))
            {
                let link = base.join(&entry.path.0)?;
                let message = format!(
                    "the symbolic link {} -> {} leaves the tree that is moved: make it relative and inside, or leave it out with `exclude`",
                    volume.place(&link),
                    shortened(&target.display()),
                );
                return Err(Failure::new(Reason::InvalidPath, message));
            }
        }
        Ok(found)
    }

    fn place(&self, path: &[u8]) -> String {
        place(self.volume, self.base, path)
    }

    fn vanished(&self, doing: &str, path: &[u8], error: Errno) -> Failure {
        match error {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => {
                let place = self.place(path);
                let message = format!(
                    "{place} was moved or replaced while the source was listed: let its writer finish first"
                );
                Failure::new(Reason::SourceChanged, message)
            }
            error => beneath::failure(doing, &self.place(path), error),
        }
    }
}

/// Keeps the root, what is no directory, and the directories above that.
fn keep_ancestors(found: &mut Vec<Found>) {
    let mut needed = HashSet::from([Vec::new()]);
    for (entry, _) in found.iter().filter(|(entry, _)| directory_path(entry).is_none()) {
        let mut path = entry.path.0.as_slice();
        while let Some(slash) = path.iter().rposition(|byte| *byte == b'/') {
            path = &path[..slash];
            if !needed.insert(path.to_vec()) {
                break;
            }
        }
    }
    found.retain(|(entry, _)| directory_path(entry).is_none_or(|path| needed.contains(path)));
}

fn directory_path(entry: &Entry) -> Option<&[u8]> {
    matches!(entry.kind, EntryKind::Directory { .. }).then_some(entry.path.0.as_slice())
}

/// A second name for another's file, made where one may write, would make the agent read what its maker may not.
fn check_owner(stat: &Stat, holder: &Stat, place: impl FnOnce() -> String) -> Result<(), Failure> {
    if stat.st_nlink > 1 && stat.st_uid != holder.st_uid {
        let message = format!(
            "{} is a hard link to a foreign file (its owner is {}, its directory's is {}): copy the file, or leave it out with `exclude`",
            place(),
            stat.st_uid,
            holder.st_uid,
        );
        return Err(Failure::new(Reason::NotRegularFile, message));
    }
    Ok(())
}

fn file(stat: &Stat) -> EntryKind {
    let mtime: Time = identity::modified(stat);
    let mode = stat.st_mode & MODE_MASK;
    EntryKind::File { size: identity::size(stat), mode, mtime, inode: stat.st_ino }
}

fn place(volume: &Volume, base: &VolumePath, path: &[u8]) -> String {
    let shown =
        base.join(path).map_or_else(|_| shortened(&String::from_utf8_lossy(path)), |path| path.display());
    format!("{shown} in volume {}", volume.name)
}

fn not_found(volume: &Volume, base: &VolumePath, error: Errno) -> Failure {
    match error {
        Errno::NOENT | Errno::NOTDIR => {
            Failure::new(Reason::SourceNotFound, format!("{} does not exist", volume.place(base)))
        }
        error => volume.failure("reading", base, error),
    }
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "no regular file",
    }
}
