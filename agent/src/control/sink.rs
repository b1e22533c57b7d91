//! Where a target puts what it receives: beneath a volume, or into a region.

use nixl_transfer_crds::{Algorithm, ContentDigest};

use crate::{
    protocol::{
        Failure, StoredFile,
        entry::{Entry, Totals},
    },
    region::{GpuMemory, Offered, RegionTarget},
    volume::{Committed, Destination, Keep, MayCommit, OpenedPartial},
};

/// The receiving end of one hop.
#[derive(Debug)]
pub enum Sink {
    /// Files.
    Volume(Box<Destination>),
    /// Memory.
    Region(Box<RegionTarget>),
}

impl Sink {
    /// What a workload offers, if it is the memory that one exposes by itself.
    pub fn offered(&self) -> Option<Offered<'_>> {
        match self {
            Self::Volume(_) => None,
            Self::Region(region) => region.offered(),
        }
    }

    /// Memory of a GPU, if it is that.
    pub fn gpu(&self) -> Option<&GpuMemory> {
        match self {
            Self::Volume(_) => None,
            Self::Region(region) => region.gpu(),
        }
    }

    /// Whether it is memory.
    pub fn is_memory(&self) -> bool {
        matches!(self, Self::Region(_))
    }

    /// Takes the next part of the manifest, and with the last one prepares to receive.
    ///
    /// # Errors
    /// What is wrong with it, or with the place.
    pub fn accept(&mut self, entries: Vec<Entry>, totals: Option<Totals>) -> Result<(), Failure> {
        match self {
            Self::Volume(destination) => destination.accept(entries, totals),
            Self::Region(region) => region.accept(entries, totals),
        }
    }

    /// What the manifest adds up to, once it is complete and all is prepared.
    pub fn totals(&self) -> Option<Totals> {
        match self {
            Self::Volume(destination) => destination.totals(),
            Self::Region(region) => region.totals(),
        }
    }

    /// Places of the files in the manifest, ascending.
    pub fn file_indices(&self) -> Vec<u32> {
        match self {
            Self::Volume(destination) => destination.file_indices().collect(),
            Self::Region(_) => vec![0],
        }
    }

    /// How many descriptors go with a file.
    pub fn descriptors(&self, index: u32) -> usize {
        match self {
            Self::Volume(destination) => destination.descriptors(index),
            Self::Region(_) => 1,
        }
    }

    /// Opens files to write into.
    ///
    /// # Errors
    /// What the place says.
    pub fn open(&mut self, indices: &[u32]) -> Result<Vec<OpenedPartial>, Failure> {
        let memory = |partial| OpenedPartial { partial, existing: None, resume: None, known: None };
        match self {
            Self::Volume(destination) => destination.partials(indices),
            Self::Region(region) => indices.iter().map(|_| region.open().map(memory)).collect(),
        }
    }

    /// The worker says that so much of a file is on the disk.
    ///
    /// # Errors
    /// What the place says.
    pub fn durable(&mut self, index: u32, length: u64, digest: &[u8]) -> Result<(), Failure> {
        match self {
            // Said of a file that was committed meanwhile, it says nothing any more.
            Self::Volume(destination) if destination.is_being_written(index) => {
                destination.durable(index, length, digest)
            }
            Self::Volume(_) | Self::Region(_) => Ok(()),
        }
    }

    /// The worker has stored and verified these files: gives them their names.
    ///
    /// # Errors
    /// What the place says.
    pub fn commit(
        &mut self,
        files: &[StoredFile],
        may_commit: &MayCommit,
        mut done: impl FnMut(Committed),
    ) -> Result<(), Failure> {
        match self {
            Self::Volume(destination) => destination.commit(files, may_commit, done),
            Self::Region(region) => {
                region.stored(files);
                files.iter().for_each(|_| done(Committed::Replaced));
                Ok(())
            }
        }
    }

    /// Everything is there: the digest of the whole.
    ///
    /// # Errors
    /// `IntegrityError` when it is not, and what the place says.
    pub fn finish(&mut self, algorithm: Algorithm, may_commit: &MayCommit) -> Result<ContentDigest, Failure> {
        match self {
            Self::Volume(destination) => destination.finish(algorithm, may_commit),
            Self::Region(region) => region.finish(may_commit()),
        }
    }

    /// Says what is to stay for the next attempt. Of memory nothing does.
    pub fn keep(&mut self, keep: Keep) {
        if let Self::Volume(destination) = self {
            destination.keep(keep);
        }
    }
}
