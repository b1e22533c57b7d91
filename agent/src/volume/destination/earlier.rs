//! What earlier attempts of the run have left for this one: matched with the manifest once it is complete. Does I/O.

use std::collections::HashMap;

use super::Destination;
use crate::digest;
use crate::protocol::Failure;
use crate::protocol::entry::{Entry, EntryKind};
use crate::volume::journal::{Durable, Page, Record, SourceFile};
use crate::volume::place::partial_name;

/// Bytes of a block as `stat` counts them.
const BLOCK: u64 = 512;

/// A partial file's beginning that need not be sent again, if its bytes have the digest: the worker looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Bytes; the partial file has just these.
    pub length: u64,
    /// Their digest, by the run's algorithm.
    pub digest: Vec<u8>,
}

/// What is left of one entry.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    pub(super) resume: Option<Resume>,
    /// Bytes that its partial file takes on the disk.
    pub(super) occupied: u64,
    /// What this run has put at the destination itself.
    pub(super) page: Page,
}

impl Destination {
    /// Finds what this attempt can go on with, forgets the rest and removes its partial files.
    pub(super) fn take_up(&mut self) -> Result<(), Failure> {
        let mut book = std::mem::take(&mut self.book);
        let (mut kept, mut forgotten) = (HashMap::new(), Vec::new());
        for (index, entry) in (0_u32..).zip(&self.entries) {
            // An empty book is the usual one, and there can be millions of entries.
            if book.pages.is_empty() {
                break;
            }
            let Some(mut page) = book.pages.remove(&entry.path.0) else { continue };
            let mut earlier = Earlier::default();
            if let Some(durable) = page.durable.take() {
                let name = partial_name(&entry.path.0);
                let fits = self.is_beginning_of(&durable, entry);
                if fits && let Some(stat) = self.partials.look(&name, durable.length)? {
                    let blocks = u64::try_from(stat.st_blocks).unwrap_or_default();
                    earlier.occupied = blocks.saturating_mul(BLOCK).min(durable.length);
                    earlier.resume = Some(Resume { length: durable.length, digest: durable.digest });
                    kept.insert(name, entry.path.0.clone());
                } else {
                    forgotten.push(entry.path.0.clone());
                }
            }
            earlier.page = page;
            self.earlier.insert(index, earlier);
        }
        forgotten.extend(book.pages.into_iter().filter_map(|(path, page)| page.durable.map(|_| path)));
        // Said before it is done: a journal never claims what is not there.
        for path in forgotten {
            self.journal().append(&Record::Forgotten { path });
        }
        self.partials.sweep(&kept);
        Ok(())
    }

    fn is_beginning_of(&self, durable: &Durable, entry: &Entry) -> bool {
        let Some(source) = source_file(entry) else { return false };
        durable.source.is(source, &self.source_node)
            && (1..=source.size).contains(&durable.length)
            && durable.digest.len() == digest::length(self.algorithm)
    }

    /// Partial files that the next attempt may go on with, and the paths that they are of.
    pub(super) fn worth_keeping(&self) -> HashMap<String, Vec<u8>> {
        let begun = self.files.iter().filter(|(_, state)| state.is_durable()).map(|(index, _)| *index);
        let waiting = self.earlier.iter().filter(|(_, earlier)| earlier.resume.is_some());
        let waiting = waiting.map(|(index, _)| *index).filter(|index| !self.files.contains_key(index));
        let of_manifest = begun.chain(waiting).filter_map(|index| self.entries.get(index as usize));
        let of_manifest = of_manifest.map(|entry| entry.path.0.clone());
        // When the manifest never became complete all that was there is as it was.
        let unread = self.book.pages.iter().filter(|(_, page)| page.durable.is_some());
        let paths = of_manifest.chain(unread.map(|(path, _)| path.clone()));
        paths.map(|path| (partial_name(&path), path)).collect()
    }

    /// What this run has put at an entry's place before.
    pub(super) fn page(&self, index: u32) -> Option<&Page> {
        self.earlier.get(&index).map(|earlier| &earlier.page)
    }
}

/// What a manifest says of a regular file.
pub(super) fn source_file(entry: &Entry) -> Option<SourceFile> {
    match entry.kind {
        EntryKind::File { size, mtime, inode, .. } => Some(SourceFile { size, mtime, inode }),
        _ => None,
    }
}

/// What [`super::check`] has to know.
pub(super) type Left = HashMap<u32, Earlier>;
