//! What must be true of a destination before anything in it is changed. Looks, changes nothing.

use std::collections::HashSet;

use nixl_transfer_crds::{Reason, WritePolicy};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::earlier::Left;
use crate::protocol::Failure;
use crate::protocol::entry::{Entry, EntryKind};
use crate::volume::identity::Identity;
use crate::volume::path::VolumePath;
use crate::volume::{Volume, beneath};

/// Bytes of a block as `stat` counts them.
const BLOCK: u64 = 512;

/// Checks each entry's place: what stands there, whether the policy lets it be replaced, and whether all fits. Gives for
/// each entry whether something stands there.
pub(super) fn against_destination(
    volume: &Volume,
    base: &VolumePath,
    policy: WritePolicy,
    entries: &[Entry],
    left: &Left,
) -> Result<Vec<bool>, Failure> {
    check_way(volume, base)?;
    let mut need = Need::default();
    let mut stands = Vec::with_capacity(entries.len());
    // Beneath a directory that is missing nobody need look: a new destination has as many misses as files.
    let mut missing: HashSet<&[u8]> = HashSet::new();
    for (index, entry) in (0_u32..).zip(entries) {
        let left = left.get(&index);
        let place = volume.join(base, &entry.path.0)?;
        let standing = match parent(&entry.path.0) {
            Some(parent) if missing.contains(parent) => None,
            _ => look(volume, &place)?,
        };
        stands.push(standing.is_some());
        if standing.is_none() && matches!(entry.kind, EntryKind::Directory { .. }) {
            missing.insert(&entry.path.0);
        }
        let ours = |stat: &Stat| left.is_some_and(|left| left.page.is_ours(&Identity::of(stat)));
        // What this run has put there itself is no reason to refuse.
        let policy = match (policy, &standing) {
            (WritePolicy::FailIfExists, Some(stat)) if ours(stat) => WritePolicy::Overwrite,
            _ => policy,
        };
        check_standing(volume, &place, entry, standing.as_ref(), policy)?;
        if let EntryKind::File { size, .. } = entry.kind {
            need.file(size, left.map_or(0, |left| left.occupied), standing.as_ref(), policy);
        }
        if let Some(stat) = standing
            && beneath::kind(&stat) == FileType::Directory
        {
            check_device(volume, &place, &stat)?;
        }
    }
    let space = volume.space().map_err(|error| {
        Failure::new(Reason::IoError, format!("reading the free space of volume {}: {error}", volume.name))
    })?;
    if need.peak > space.free {
        let message = format!(
            "volume {} has {} bytes free of {}, and {} are needed: free some there, or choose another volume",
            volume.name, space.free, space.capacity, need.peak
        );
        return Err(Failure::new(Reason::InsufficientSpace, message));
    }
    Ok(stands)
}

/// The path of the directory that holds an entry; `None` for the root.
fn parent(path: &[u8]) -> Option<&[u8]> {
    if path.is_empty() {
        return None;
    }
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    path.get(..end)
}

/// Every directory on the way to the destination that exists must be one, on the volume's own file system.
fn check_way(volume: &Volume, base: &VolumePath) -> Result<(), Failure> {
    let mut at = Some(base.clone());
    while let Some((above, _)) = at.as_ref().and_then(VolumePath::split) {
        if let Some(stat) = look(volume, &above)? {
            if beneath::kind(&stat) == FileType::Symlink {
                return Err(volume.failure("writing beneath", &above, Errno::LOOP));
            }
            if beneath::kind(&stat) != FileType::Directory {
                return Err(exists(
                    volume,
                    &above,
                    "is no directory, and one is needed there: remove it, or choose another path",
                ));
            }
            check_device(volume, &above, &stat)?;
        }
        at = Some(above);
    }
    Ok(())
}

fn look(volume: &Volume, place: &VolumePath) -> Result<Option<Stat>, Failure> {
    beneath::look(volume.root(), place).map_err(|error| match error {
        Errno::NOTDIR => exists(volume, place, "lies beneath something that is no directory"),
        other => volume.failure("reading", place, other),
    })
}

fn check_standing(
    volume: &Volume,
    place: &VolumePath,
    entry: &Entry,
    standing: Option<&Stat>,
    policy: WritePolicy,
) -> Result<(), Failure> {
    let Some(stat) = standing else { return Ok(()) };
    let kind = beneath::kind(stat);
    match (&entry.kind, kind) {
        (EntryKind::Directory { .. }, FileType::Directory) => Ok(()),
        (EntryKind::Directory { .. }, _) => Err(exists(
            volume,
            place,
            "is no directory, and one is needed there: remove it, or choose another path",
        )),
        (_, FileType::Directory) => Err(exists(
            volume,
            place,
            "is a directory, and a file or link is to stand there: remove it, or choose another path",
        )),
        (_, FileType::RegularFile | FileType::Symlink) if policy == WritePolicy::FailIfExists => Err(exists(
            volume,
            place,
            "exists, and spec.writePolicy is FailIfExists: remove it, or set another policy",
        )),
        (_, FileType::RegularFile | FileType::Symlink) => Ok(()),
        _ => Err(exists(volume, place, "is a FIFO, socket or device, which is never replaced")),
    }
}

fn exists(volume: &Volume, place: &VolumePath, why: &str) -> Failure {
    Failure::new(Reason::DestinationExists, format!("{} {why}", volume.place(place)))
}

/// A partial file cannot be renamed onto another file system.
fn check_device(volume: &Volume, place: &VolumePath, stat: &Stat) -> Result<(), Failure> {
    if stat.st_dev == volume.device {
        return Ok(());
    }
    let message = format!(
        "{} is on another file system than the volume's root, so files cannot be moved there in one step: publish it as a volume of its own",
        volume.place(place)
    );
    Err(Failure::new(Reason::InvalidPath, message))
}

/// How many bytes must be free at the worst moment: files are committed in order, and each gives back the room of the
/// one that it replaces, or of its partial when it is skipped.
#[derive(Default)]
pub(super) struct Need {
    now: u64,
    pub(super) peak: u64,
}

impl Need {
    /// `occupied` is what its partial file takes already.
    pub(super) fn file(&mut self, size: u64, occupied: u64, standing: Option<&Stat>, policy: WritePolicy) {
        self.now = self.now.saturating_add(size.saturating_sub(occupied));
        self.peak = self.peak.max(self.now);
        let Some(stat) = standing else { return };
        let occupied = u64::try_from(stat.st_blocks).unwrap_or_default().saturating_mul(BLOCK);
        let given_back = match policy {
            WritePolicy::SkipIdentical if u64::try_from(stat.st_size) == Ok(size) => size,
            _ if stat.st_nlink == 1 => occupied.min(size),
            _ => 0,
        };
        self.now = self.now.saturating_sub(given_back);
    }
}
