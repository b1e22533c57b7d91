//! A region as a destination: takes a manifest of one file that fits, and says that it is complete when all of it is there
//! and verified.

use std::os::fd::OwnedFd;

use nixl_transfer_crds::{Algorithm, ContentDigest, Reason};

use super::{GpuMemory, Offered, Writing};
use crate::{
    manifest,
    protocol::{
        Failure, StoredFile,
        entry::{Entry, EntryKind, Totals},
    },
};

/// A region that receives.
#[derive(Debug)]
pub struct RegionTarget {
    writing: Writing,
    algorithm: Algorithm,
    entries: Vec<Entry>,
    totals: Option<Totals>,
    /// Of what is there, complete.
    digest: Option<Vec<u8>>,
}

impl RegionTarget {
    /// Of a region that may be written.
    pub fn new(writing: Writing, algorithm: Algorithm) -> Self {
        Self { writing, algorithm, entries: Vec::new(), totals: None, digest: None }
    }

    /// Takes the next part of the manifest; the part with totals is the last.
    ///
    /// # Errors
    /// `InvalidSpec` for anything but one file, `LengthMismatch` for one that does not fit.
    pub fn accept(&mut self, entries: Vec<Entry>, totals: Option<Totals>) -> Result<(), Failure> {
        let name = self.writing.name();
        let room = self.writing.memory.bytes();
        self.entries.extend(entries);
        if self.entries.len() > 1 {
            let message = format!(
                "the source is a directory, and MemoryRegion {name} takes one file: name a file in spec.source"
            );
            return Err(Failure::new(Reason::InvalidSpec, message));
        }
        let Some(totals) = totals else { return Ok(()) };
        manifest::check(&self.entries, totals)?;
        match self.entries.first().map(|entry| &entry.kind) {
            Some(EntryKind::File { size, .. })
                if *size == room || (*size < room && self.offered().is_none()) =>
            {
                self.totals = Some(totals);
                Ok(())
            }
            Some(EntryKind::File { size, .. }) => {
                let message = format!(
                    "the source has {size} bytes, MemoryRegion {name} has {room}: make the region as large"
                );
                Err(Failure::new(Reason::LengthMismatch, message))
            }
            _ => {
                let message =
                    format!("the source is an empty directory, and MemoryRegion {name} takes one file");
                Err(Failure::new(Reason::InvalidSpec, message))
            }
        }
    }

    /// What the manifest adds up to, once it is complete.
    pub fn totals(&self) -> Option<Totals> {
        self.totals
    }

    /// What a workload offers, where it exposes the memory by itself.
    pub fn offered(&self) -> Option<Offered<'_>> {
        self.writing.offered()
    }

    /// Memory of a GPU, where it is that.
    pub fn gpu(&self) -> Option<&GpuMemory> {
        self.writing.memory.gpu()
    }

    /// A descriptor to write it.
    ///
    /// # Errors
    /// `IoError`.
    pub fn open(&self) -> Result<OwnedFd, Failure> {
        let writer = self.writing.memory.host()?.writer();
        writer.map_err(|errno| Failure::new(Reason::IoError, format!("the region cannot be opened: {errno}")))
    }

    /// The worker has written and verified it.
    pub fn stored(&mut self, files: &[StoredFile]) {
        self.digest = files.last().map(|file| file.digest.clone());
    }

    /// Everything is there: makes it the region's content.
    ///
    /// # Errors
    /// `IntegrityError` when it is not, `AgentNotReady` when `may_complete` says no, and why the region was taken away.
    pub fn finish(&mut self, may_complete: bool) -> Result<ContentDigest, Failure> {
        let (Some(totals), Some(bytes)) = (self.totals, self.digest.take()) else {
            return Err(Failure::new(Reason::IntegrityError, "the region was not stored"));
        };
        if !may_complete {
            let message = "the agent has not renewed its Lease in time and must not finish";
            return Err(Failure::new(Reason::AgentNotReady, message));
        }
        let digest = ContentDigest { algorithm: self.algorithm, bytes };
        self.writing.complete(totals.bytes, digest.to_string())?;
        Ok(digest)
    }
}
