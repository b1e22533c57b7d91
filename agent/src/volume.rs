//! Volumes: the directories that the administrator has published, and the only places where an agent touches files.
//! Everything beneath is reached through `beneath`. Does I/O, blocking.

pub mod beneath;
pub mod destination;
pub mod filter;
mod identity;
mod journal;
mod leftovers;
pub mod lock;
mod parallel;
pub mod path;
mod place;
mod remembered;
mod standing;
pub mod tree;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nixl_transfer_crds::Reason;
use rustix::fs::{Mode, OFlags, StatVfsMountFlags, fstat, fstatvfs};
use rustix::io::Errno;
use serde::Deserialize;

pub use destination::{Committed, Destination, Keep, MayCommit, OpenedPartial, Resume};
pub use leftovers::Left;
pub use lock::{DestinationLock, DestinationLocks};
pub use place::RunPlace;
pub use remembered::{Memory, Remembered};
pub use standing::Standing;
pub use tree::SourceTree;

use crate::protocol::Failure;
use path::VolumePath;

/// A volume as the configuration file has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeConfig {
    /// Name by which jobs refer to it.
    pub name: String,
    /// The directory.
    pub path: PathBuf,
    /// Whether it can only be a source.
    #[serde(default)]
    pub read_only: bool,
    /// Namespaces whose jobs may use it; `*` stands for all.
    pub allowed_namespaces: Vec<String>,
}

/// An opened volume.
#[derive(Debug)]
pub struct Volume {
    /// Name by which jobs refer to it.
    pub name: String,
    /// Whether it can only be a source.
    pub read_only: bool,
    /// Namespaces whose jobs may use it; `*` stands for all.
    pub allowed_namespaces: Vec<String>,
    root: OwnedFd,
    /// As the configuration has it; it may lead elsewhere by now.
    path: PathBuf,
    canonical: PathBuf,
    device: u64,
    open_places: leftovers::OpenPlaces,
}

/// Room on a volume's file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub capacity: u64,
    /// Bytes that this process could still write.
    pub free: u64,
    /// Whether it is mounted so that nobody can write.
    pub mounted_read_only: bool,
}

impl Volume {
    /// Opens the directory once; from then on a rename of it changes nothing.
    ///
    /// # Errors
    /// `VolumeNotFound` when the path is missing, is no directory, or cannot be read.
    pub fn open(config: &VolumeConfig) -> Result<Self, Failure> {
        let not_found = |error: io::Error| {
            let message = format!("volume {}: {}: {error}", config.name, config.path.display());
            Failure::new(Reason::VolumeNotFound, message)
        };
        let canonical = config.path.canonicalize().map_err(not_found)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::open(&canonical, flags, Mode::empty()).map_err(|error| not_found(error.into()))?;
        let device = fstat(&root).map_err(|error| not_found(error.into()))?.st_dev;
        Ok(Self {
            name: config.name.clone(),
            read_only: config.read_only,
            allowed_namespaces: config.allowed_namespaces.clone(),
            root,
            path: config.path.clone(),
            canonical,
            device,
            open_places: leftovers::OpenPlaces::default(),
        })
    }

    /// Whether jobs of a namespace may use it.
    pub fn allows(&self, namespace: &str) -> bool {
        self.allowed_namespaces.iter().any(|allowed| allowed == "*" || allowed == namespace)
    }

    /// Room on its file system, now.
    pub fn space(&self) -> io::Result<Space> {
        let stat = fstatvfs(&self.root)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Space {
            capacity: bytes(stat.f_blocks),
            free: bytes(stat.f_bavail),
            mounted_read_only: stat.f_flag.contains(StatVfsMountFlags::RDONLY),
        })
    }

    /// Removes what dead runs have left: partial files and journals of every place that is dead, or foreign and untouched
    /// for seven days, and all that stands under names of earlier layouts. What this process works on stays, and so does a
    /// file that any process still holds locked. `judge` is asked of each place right before it is removed, too. Gives the
    /// number of files removed.
    pub fn collect_leftovers(&self, judge: impl Fn(&RunPlace) -> Left) -> io::Result<u64> {
        if self.read_only { Ok(0) } else { leftovers::collect(self.root(), &self.open_places, judge) }
    }

    /// Its directory without symbolic links, for messages and locks.
    pub fn canonical(&self) -> &Path {
        &self.canonical
    }

    fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// A path as messages name it.
    fn place(&self, path: &VolumePath) -> String {
        format!("{} in volume {}", path.display(), self.name)
    }

    /// The failure for an error of the file system at a path.
    fn failure(&self, doing: &str, path: &VolumePath, error: Errno) -> Failure {
        beneath::failure(doing, &self.place(path), error)
    }

    /// A path of a spec; a failure names the volume too.
    fn parse(&self, path: &str) -> Result<VolumePath, Failure> {
        VolumePath::parse(path).map_err(|failure| self.named(failure))
    }

    /// A manifest entry's place beneath a path; a failure names the volume too.
    fn join(&self, base: &VolumePath, entry: &[u8]) -> Result<VolumePath, Failure> {
        base.join(entry).map_err(|failure| self.named(failure))
    }

    fn named(&self, failure: Failure) -> Failure {
        Failure::new(failure.reason, format!("volume {}: {}", self.name, failure.message))
    }
}
