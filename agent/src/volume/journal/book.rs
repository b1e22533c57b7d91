//! What a journal says when it is read from its beginning: of each path the latest that still holds. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use nixl_transfer_crds::Algorithm;

use super::record::{Record, SourceFile};
use crate::volume::identity::{Identity, Unnamed};

/// A source file with the node that it was seen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::volume) struct Seen {
    pub node: Arc<str>,
    pub file: SourceFile,
}

impl Seen {
    /// Whether it is the file that a manifest of `node` has now. Numbers of inodes of two nodes say nothing of each other.
    pub fn is(&self, file: SourceFile, node: &str) -> bool {
        let same_inode = *self.node != *node || self.file.inode == file.inode;
        self.file.size == file.size && self.file.mtime == file.mtime && same_inode
    }
}

/// A partial file's durable beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::volume) struct Durable {
    pub source: Seen,
    pub length: u64,
    pub digest: Vec<u8>,
}

/// A file that this run has given its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::volume) struct Named {
    pub source: Seen,
    pub file: Identity,
    pub digest: Vec<u8>,
}

/// What is said of one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::volume) struct Page {
    pub durable: Option<Durable>,
    pub naming: Option<Unnamed>,
    pub committed: Option<Named>,
}

impl Page {
    /// Whether what stands at the path is this run's own work.
    pub fn is_ours(&self, standing: &Identity) -> bool {
        let named = self.committed.as_ref().is_some_and(|committed| committed.file == *standing);
        named || self.naming.is_some_and(|naming| naming == standing.unnamed())
    }
}

/// The whole of it.
#[derive(Debug, Default)]
pub(in crate::volume) struct Book {
    pub pages: HashMap<Vec<u8>, Page>,
    node: Option<Arc<str>>,
}

impl Book {
    /// Takes the next record; false when a journal of this algorithm cannot have it there.
    pub(super) fn take(&mut self, record: Record, algorithm: Algorithm) -> bool {
        if let Record::Header { algorithm: written, source_node } = record {
            self.node = Some(source_node.into());
            return written == algorithm;
        }
        let Some(node) = self.node.clone() else { return false };
        match record {
            Record::Header { .. } => {}
            Record::Durable { path, source, length, digest } => {
                let source = Seen { node, file: source };
                self.page(path).durable = Some(Durable { source, length, digest });
            }
            Record::Naming { path, file } => self.page(path).naming = Some(file),
            // The partial file has become that file: nothing else that was said of the path is left.
            Record::Committed { path, source, file, digest } => {
                let source = Seen { node, file: source };
                *self.page(path) =
                    Page { committed: Some(Named { source, file, digest }), ..Page::default() };
            }
            Record::Forgotten { path } => {
                if let Some(page) = self.pages.get_mut(&path) {
                    page.durable = None;
                }
            }
        }
        true
    }

    /// The node of the last header.
    pub(super) fn node(&self) -> Option<&Arc<str>> {
        self.node.as_ref()
    }

    /// Whether any of it is worth keeping.
    pub fn is_useful(&self) -> bool {
        self.pages.values().any(|page| *page != Page::default())
    }

    /// Records that say the same; `node` is the one that further records are about.
    pub(super) fn records(self, algorithm: Algorithm, node: &str) -> Vec<Record> {
        // What is committed goes first: it takes back all that was said of its path before.
        let (mut committed, mut rest) = (Vec::new(), Vec::new());
        let ours: Arc<str> = node.into();
        for (path, page) in self.pages {
            if let Some(Named { source, file, digest }) = page.committed {
                let record = Record::Committed { path: path.clone(), source: source.file, file, digest };
                committed.push((source.node, record));
            }
            if let Some(file) = page.naming {
                rest.push((ours.clone(), Record::Naming { path: path.clone(), file }));
            }
            if let Some(Durable { source, length, digest }) = page.durable {
                rest.push((source.node, Record::Durable { path, source: source.file, length, digest }));
            }
        }
        committed.sort_by(|(one, _), (other, _)| one.cmp(other));
        rest.sort_by(|(one, _), (other, _)| one.cmp(other));
        let header = |node: &str| Record::Header { algorithm, source_node: node.into() };
        let mut records = Vec::new();
        let mut at = None;
        for (node, record) in committed.into_iter().chain(rest) {
            if at.as_ref() != Some(&node) {
                records.push(header(&node));
                at = Some(node);
            }
            records.push(record);
        }
        if at.as_ref() != Some(&ours) {
            records.push(header(node));
        }
        records
    }

    fn page(&mut self, path: Vec<u8>) -> &mut Page {
        self.pages.entry(path).or_default()
    }
}
