//! Rules of a manifest, the same on both ends: its order, its bounds, and the digest of a tree. Pure.

use std::collections::HashSet;

use nixl_transfer_crds::{Algorithm, ContentDigest, Reason};

use crate::digest::Hasher;
use crate::protocol::Failure;
use crate::protocol::entry::{Entry, EntryKind, Totals};
use crate::volume::path::{check_entry_path, link_stays_inside, shortened};

/// Entries that one transfer may have: beyond it neither end would hold the manifest in memory.
pub const MAX_ENTRIES: usize = 4_000_000;
/// Bytes that all paths and links of one manifest may have together, for the same reason.
pub const MAX_TEXT: usize = 512 << 20;
/// Permission bits that are copied. Set-user-id and its like are not: they would act for another owner.
pub const MODE_MASK: u32 = 0o777;
const NANOSECONDS: u32 = 1_000_000_000;

/// Adds the entries up.
pub fn totals(entries: &[Entry]) -> Totals {
    let mut totals = Totals::default();
    entries.iter().for_each(|entry| totals.add(entry));
    totals
}

/// Bytes of an entry's path and link.
pub fn text(entry: &Entry) -> usize {
    entry.path.0.len() + if let EntryKind::Link { target } = &entry.kind { target.0.len() } else { 0 }
}

/// Checks a whole manifest as it came from another node. A file alone is one entry with an empty path; a tree begins
/// with its root directory, then every entry in the order of its path's bytes, each in a directory that came before.
///
/// # Errors
/// `InvalidPath` for a place outside the tree, `IntegrityError` for anything that no honest source makes.
pub fn check(entries: &[Entry], announced: Totals) -> Result<(), Failure> {
    let malformed =
        |what: String| Err(Failure::new(Reason::IntegrityError, format!("malformed manifest: {what}")));
    if entries.len() > MAX_ENTRIES {
        return malformed(format!("more than {MAX_ENTRIES} entries"));
    }
    let Some(root) = entries.first() else { return malformed("no entry".into()) };
    if !root.path.0.is_empty() {
        return malformed("it does not begin with its root".into());
    }
    match root.kind {
        EntryKind::File { .. } if entries.len() > 1 => {
            return malformed("a file has entries beneath it".into());
        }
        EntryKind::Link { .. } => return malformed("the root is a link".into()),
        _ => {}
    }
    let directories: HashSet<&[u8]> = entries
        .iter()
        .filter(|entry| matches!(entry.kind, EntryKind::Directory { .. }))
        .map(|entry| entry.path.0.as_slice())
        .collect();
    let mut bytes = 0_u64;
    for (position, entry) in entries.iter().enumerate() {
        let path = entry.path.0.as_slice();
        let shown = || shortened(&entry.path.display());
        if position > 0 {
            check_entry_path(path)?;
            if path <= entries[position - 1].path.0.as_slice() {
                return malformed(format!("{} is out of order or stands twice", shown()));
            }
            let parent =
                path.iter().rposition(|byte| *byte == b'/').map_or(&path[..0], |slash| &path[..slash]);
            if !directories.contains(parent) {
                return malformed(format!("{} is in no directory of the tree", shown()));
            }
        }
        match &entry.kind {
            EntryKind::File { size, mtime, .. } => {
                let Some(sum) = bytes.checked_add(*size).filter(|_| i64::try_from(*size).is_ok()) else {
                    return malformed(format!("{} has an impossible size", shown()));
                };
                bytes = sum;
                if mtime.nanoseconds >= NANOSECONDS {
                    return malformed(format!("{} has an impossible time", shown()));
                }
            }
            EntryKind::Directory { mtime, .. } if mtime.nanoseconds >= NANOSECONDS => {
                return malformed(format!("{} has an impossible time", shown()));
            }
            EntryKind::Directory { .. } => {}
            EntryKind::Link { target } => {
                if !link_stays_inside(path, &target.0, |path| directories.contains(path)) {
                    let to = shortened(&target.display());
                    let message = format!("the link {} -> {to} leaves the tree that is moved", shown());
                    return Err(Failure::new(Reason::InvalidPath, message));
                }
            }
        }
    }
    if totals(entries) != announced {
        return malformed("its totals are others than announced".into());
    }
    Ok(())
}

/// The digest of what a manifest stands for: a file's own, or for a tree the digest over its lines. Modes and times are
/// no content. `of_file` gives the digest of a regular file by its place in the manifest; `None` when one is missing.
///
/// A line is its kind (`D`, `F`, `L`), the path, and for a file size and digest in lower-case hex, for a link what it
/// says; every field ends with a NUL, every line with a newline, so that no name can imitate another line.
pub fn digest<'a>(
    algorithm: Algorithm,
    entries: &[Entry],
    of_file: impl Fn(u32) -> Option<&'a [u8]>,
) -> Option<ContentDigest> {
    if let [Entry { kind: EntryKind::File { .. }, .. }] = entries {
        return Some(ContentDigest { algorithm, bytes: of_file(0)?.to_vec() });
    }
    let mut hasher = Hasher::new(algorithm);
    let mut line = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        line.clear();
        let mut field = |bytes: &[u8]| {
            line.extend_from_slice(bytes);
            line.push(0);
        };
        match &entry.kind {
            EntryKind::Directory { .. } => {
                field(b"D");
                field(&entry.path.0);
            }
            EntryKind::File { size, .. } => {
                let content = of_file(u32::try_from(index).ok()?)?;
                field(b"F");
                field(&entry.path.0);
                field(size.to_string().as_bytes());
                field(content.iter().map(|byte| format!("{byte:02x}")).collect::<String>().as_bytes());
            }
            EntryKind::Link { target } => {
                field(b"L");
                field(&entry.path.0);
                field(&target.0);
            }
        }
        line.push(b'\n');
        hasher.update(&line);
    }
    Some(ContentDigest { algorithm, bytes: hasher.finish() })
}

#[cfg(test)]
mod tests;
