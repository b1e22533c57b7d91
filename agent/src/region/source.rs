//! A region as a source: a manifest of one file, which is the region's content.

use std::{os::fd::OwnedFd, sync::OnceLock};

use nixl_transfer_crds::{Algorithm, ContentDigest, Reason};

use super::{GpuMemory, Offered, Reading};
use crate::{
    manifest,
    protocol::{
        Failure,
        entry::{Entry, EntryKind, RelativePath, Totals},
    },
};

/// Mode of a file that is made of memory: whoever may enter its directory may read it, as with any file.
const MODE: u32 = 0o644;

/// A region that is sent.
#[derive(Debug)]
pub struct RegionSource {
    reading: Reading,
    algorithm: Algorithm,
    entries: [Entry; 1],
    digest: OnceLock<Vec<u8>>,
}

impl RegionSource {
    /// Of a region that may be read.
    pub fn new(reading: Reading, algorithm: Algorithm) -> Self {
        let kind = EntryKind::File { size: reading.bytes, mode: MODE, mtime: reading.since, inode: 0 };
        let entries = [Entry { path: RelativePath::default(), kind }];
        Self { reading, algorithm, entries, digest: OnceLock::new() }
    }

    /// The manifest.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What the manifest adds up to.
    pub fn totals(&self) -> Totals {
        manifest::totals(&self.entries)
    }

    /// Whether it is somebody else's memory, who hears when the target has it.
    pub fn is_lent(&self) -> bool {
        self.reading.is_lent()
    }

    /// Resolves when the region is taken away.
    pub fn ended(&self) -> impl Future<Output = Failure> + Send + use<> {
        self.reading.ended()
    }

    /// All of it was read, with this digest.
    pub fn was_read(&self, digest: &[u8]) {
        // It is read once in a hop.
        let _ = self.digest.set(digest.to_vec());
    }

    /// The target has it.
    pub fn sent(&self) {
        if let Some(bytes) = self.digest.get() {
            let digest = ContentDigest { algorithm: self.algorithm, bytes: bytes.clone() };
            self.reading.complete(self.reading.bytes, digest.to_string());
        }
    }

    /// What a workload offers, where it exposes the memory by itself.
    pub fn offered(&self) -> Option<Offered<'_>> {
        self.reading.offered()
    }

    /// Memory of a GPU, where it is that.
    pub fn gpu(&self) -> Option<&GpuMemory> {
        self.reading.memory.gpu()
    }

    /// A descriptor to read it.
    ///
    /// # Errors
    /// `IoError`.
    pub fn open(&self) -> Result<OwnedFd, Failure> {
        let reader = self.reading.memory.host()?.reader();
        reader.map_err(|errno| Failure::new(Reason::IoError, format!("the region cannot be opened: {errno}")))
    }
}
