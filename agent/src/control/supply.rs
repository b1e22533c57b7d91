//! What a source sends: a tree of a volume, or a region.

use std::os::fd::OwnedFd;

use crate::{
    protocol::{
        Failure,
        entry::{Entry, Totals},
    },
    region::{GpuMemory, Offered, RegionSource, or_never},
    volume::SourceTree,
};

/// The sending end of one hop.
#[derive(Debug)]
pub enum Supply {
    /// Files.
    Tree(SourceTree),
    /// Memory.
    Region(RegionSource),
}

impl Supply {
    /// The manifest.
    pub fn entries(&self) -> &[Entry] {
        match self {
            Self::Tree(tree) => tree.entries(),
            Self::Region(region) => region.entries(),
        }
    }

    /// What the manifest adds up to.
    pub fn totals(&self) -> Totals {
        match self {
            Self::Tree(tree) => tree.totals(),
            Self::Region(region) => region.totals(),
        }
    }

    /// Resolves when it is taken away, which a tree never is.
    pub fn ended(&self) -> impl Future<Output = Failure> + Send + use<> {
        or_never(match self {
            Self::Tree(_) => None,
            Self::Region(region) => Some(region.ended()),
        })
    }

    /// What a workload offers, if it is the memory that one exposes by itself.
    pub fn offered(&self) -> Option<Offered<'_>> {
        match self {
            Self::Tree(_) => None,
            Self::Region(region) => region.offered(),
        }
    }

    /// Memory of a GPU, if it is that.
    pub fn gpu(&self) -> Option<&GpuMemory> {
        match self {
            Self::Tree(_) => None,
            Self::Region(region) => region.gpu(),
        }
    }

    /// Whether it is somebody else's memory, who hears when the target has it.
    pub fn is_lent(&self) -> bool {
        matches!(self, Self::Region(region) if region.is_lent())
    }

    /// Whether it is memory.
    pub fn is_memory(&self) -> bool {
        matches!(self, Self::Region(_))
    }

    /// Descriptors to read what stands at these places of the manifest.
    ///
    /// # Errors
    /// As the tree says, or the region.
    pub fn open(&self, indices: &[u32]) -> Result<Vec<OwnedFd>, Failure> {
        match self {
            Self::Tree(tree) => tree.open(indices),
            Self::Region(region) => indices.iter().map(|_| region.open()).collect(),
        }
    }

    /// The digest of a file, if it is known from before.
    pub fn known(&self, index: u32) -> Option<Vec<u8>> {
        match self {
            Self::Tree(tree) => tree.known(index),
            Self::Region(_) => None,
        }
    }

    /// Remembers the digest of a file that was read.
    pub fn remember(&self, index: u32, digest: &[u8]) {
        match self {
            Self::Tree(tree) => tree.remember(index, digest),
            Self::Region(region) => region.was_read(digest),
        }
    }

    /// All was sent, and the target has it.
    pub fn sent(&self) {
        if let Self::Region(region) = self {
            region.sent();
        }
    }
}
