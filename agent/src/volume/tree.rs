//! The sending side: what lies beneath a source path, found once, and each file opened as the very one that was found.
//! Does I/O, blocking; never opens anything but directories and regular files.

mod walk;

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;

use nixl_transfer_crds::{Reason, endpoint::SourceVolume};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::beneath;
use super::filter::Filter;
use super::path::VolumePath;
use super::Volume;
use crate::manifest;
use crate::protocol::Failure;
use crate::protocol::entry::{Entry, EntryKind, RelativePath, Time, Totals};

/// A source, walked.
#[derive(Debug)]
pub struct SourceTree {
    root: OwnedFd,
    path: VolumePath,
    entries: Vec<Entry>,
    /// Beside each entry; `None` for what is not read.
    identities: Vec<Option<Identity>>,
}

/// What tells a file from another one, and from itself after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: i64,
    mtime: (i64, u64),
    ctime: (i64, u64),
}

impl Identity {
    fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            mtime: (stat.st_mtime, stat.st_mtime_nsec),
            ctime: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

impl SourceTree {
    /// Finds everything that the source's path and globs stand for.
    ///
    /// # Errors
    /// `SourceNotFound`, `SourceEmpty`, `NotRegularFile`, `InvalidPath`, `InvalidSpec`, `IoError`, and `Cancelled` as
    /// soon as `cancelled` is set.
    pub fn walk(volume: &Volume, source: &SourceVolume, cancelled: &AtomicBool) -> Result<Self, Failure> {
        let path = VolumePath::parse(&source.at.path)?;
        let filter = Filter::new(source)?;
        let root = volume.root().try_clone_to_owned().map_err(|error| {
            Failure::new(Reason::IoError, format!("volume {}: {error}", volume.name))
        })?;
        let (_, stat) = beneath::locate(volume.root(), &path).map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR => {
                let message = format!("nothing stands at {} in volume {}", path.display(), volume.name);
                Failure::new(Reason::SourceNotFound, message)
            }
            other => beneath::failure("opening", &path, other),
        })?;
        let found = match beneath::kind(&stat) {
            FileType::RegularFile => {
                let parent = path.split().map(|(parent, _)| parent).unwrap_or_default();
                let (_, above) = beneath::locate(volume.root(), &parent)
                    .map_err(|error| beneath::failure("opening", &parent, error))?;
                check_hard_link(&stat, above.st_uid, &path)?;
                vec![(file_entry(Vec::new(), &stat), Some(Identity::of(&stat)))]
            }
            FileType::Directory => walk::walk(volume.root(), &path, &stat, &filter, cancelled)?,
            other => return Err(refused(other, &path)),
        };
        let (entries, identities) = found.into_iter().unzip();
        Ok(Self { root, path, entries, identities })
    }

    /// The manifest: its root first, then by path.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What the manifest adds up to.
    pub fn totals(&self) -> Totals {
        manifest::totals(&self.entries)
    }

    /// Opens a regular file of the manifest for reading.
    ///
    /// # Errors
    /// `SourceChanged` when it is not the file that was found, or was written since.
    pub fn open(&self, index: u32) -> Result<OwnedFd, Failure> {
        let (path, identity) = self.file(index)?;
        let (handle, stat) = beneath::locate(self.root_fd(), &path).map_err(|error| gone(&path, error))?;
        if Identity::of(&stat) != identity || beneath::kind(&stat) != FileType::RegularFile {
            return Err(changed(&path));
        }
        beneath::read_located(&handle).map_err(|error| beneath::failure("opening", &path, error))
    }

    /// To be asked when all was read: whether every file is still as it was found.
    ///
    /// # Errors
    /// `SourceChanged`, naming the first file that is not.
    pub fn unchanged(&self) -> Result<(), Failure> {
        for (index, identity) in self.identities.iter().enumerate() {
            if identity.is_some() {
                let (path, identity) = self.file(u32::try_from(index).unwrap_or(u32::MAX))?;
                let (_, stat) = beneath::locate(self.root_fd(), &path).map_err(|error| gone(&path, error))?;
                if Identity::of(&stat) != identity {
                    return Err(changed(&path));
                }
            }
        }
        Ok(())
    }

    fn root_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.root)
    }

    fn file(&self, index: u32) -> Result<(VolumePath, Identity), Failure> {
        let position = index as usize;
        match (self.entries.get(position), self.identities.get(position)) {
            (Some(entry), Some(Some(identity))) => Ok((self.path.join(&entry.path.0)?, *identity)),
            _ => Err(Failure::new(Reason::IoError, format!("entry {index} is no regular file of the source"))),
        }
    }
}

fn gone(path: &VolumePath, error: Errno) -> Failure {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => changed(path),
        other => beneath::failure("opening", path, other),
    }
}

fn changed(path: &VolumePath) -> Failure {
    let message = format!("{} was changed, replaced or removed while it was moved", path.display());
    Failure::new(Reason::SourceChanged, message)
}

fn refused(kind: FileType, path: &VolumePath) -> Failure {
    let (reason, what) = match kind {
        FileType::Symlink => (Reason::InvalidPath, "a symbolic link; give the path that it leads to"),
        FileType::Fifo => (Reason::NotRegularFile, "a FIFO"),
        FileType::Socket => (Reason::NotRegularFile, "a socket"),
        FileType::CharacterDevice | FileType::BlockDevice => (Reason::NotRegularFile, "a device"),
        _ => (Reason::NotRegularFile, "of an unknown kind"),
    };
    Failure::new(reason, format!("{} is {what}", path.display()))
}

/// A user who may write to a published directory could link a file there that he may not read, and have the agent read
/// it for him. Such a file has several names and another owner than the directory.
fn check_hard_link(stat: &Stat, directory_owner: u32, path: &VolumePath) -> Result<(), Failure> {
    if stat.st_nlink > 1 && stat.st_uid != directory_owner {
        let message = format!("{} is a hard link to a foreign file: its owner is not the directory's", path.display());
        return Err(Failure::new(Reason::NotRegularFile, message));
    }
    Ok(())
}

fn time(seconds: i64, nanoseconds: u64) -> Time {
    Time { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap_or_default() }
}

fn mode(stat: &Stat) -> u32 {
    Mode::from_raw_mode(stat.st_mode).as_raw_mode() & manifest::MODE_MASK
}

fn file_entry(path: Vec<u8>, stat: &Stat) -> Entry {
    let kind = EntryKind::File {
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mode: mode(stat),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Entry { path: RelativePath(path), kind }
}

fn directory_entry(path: Vec<u8>, stat: &Stat) -> Entry {
    let kind = EntryKind::Directory { mode: mode(stat), mtime: time(stat.st_mtime, stat.st_mtime_nsec) };
    Entry { path: RelativePath(path), kind }
}

/// Flags to list a directory.
const LIST: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);
