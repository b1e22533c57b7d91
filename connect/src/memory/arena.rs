//! Staging memory: an anonymous mapping, pre-faulted, page-aligned, unmapped on drop; and the slots it is cut into.
//! A slot is an owned token, so that Rust's own rules say who may touch its bytes.
#![allow(unsafe_code)] // mapping memory, and slices of memory that NIXL writes from outside of Rust

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::device::Device;
use crate::metadata::SerializedDescriptor;
use crate::session::{Abandoned, Backing};

/// An owned piece of host memory that can be registered with NIXL.
#[derive(Debug)]
pub struct Arena {
    start: NonNull<u8>,
    length: usize,
    abandoned: Abandoned,
}

// SAFETY: the mapping belongs to no thread; all access to its bytes goes through `Slot`, of which there is one per
// range (see `into_slots`).
unsafe impl Send for Arena {}
// SAFETY: as above; `&Arena` gives only numbers.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps `length` bytes of zeroed memory with every page present, so that the first transfer pays for no page fault.
    ///
    /// # Errors
    /// What the kernel says: `length` is 0, or there is no memory.
    pub fn new(length: usize) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice replaces no other mapping.
        let start = unsafe {
            mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, flags)
        }?;
        match NonNull::new(start.cast()) {
            Some(start) => Ok(Self { start, length, abandoned: Abandoned::default() }),
            None => Err(io::Error::other("the kernel mapped memory at address 0")),
        }
    }

    /// Address of the first byte in this process.
    pub fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Never true: the kernel maps nothing of length 0.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Cuts the arena into `count` slots of `size` bytes each, from its start. Takes the arena, so each range has one slot.
    ///
    /// # Errors
    /// When `count * size` is more than the arena holds.
    pub fn into_slots(self, count: usize, size: usize) -> io::Result<(Arc<Self>, Vec<Slot>)> {
        if count.checked_mul(size).is_none_or(|needed| needed > self.length) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the slots do not fit into the arena"));
        }
        let arena = Arc::new(self);
        let slots = (0..count).map(|index| Slot { arena: Arc::clone(&arena), index, size }).collect();
        Ok((arena, slots))
    }
}

impl Backing for Arena {
    fn range(&self) -> SerializedDescriptor {
        SerializedDescriptor { device: Device::Cpu, ptr: self.address() as u64, size: self.length as u64 }
    }

    fn abandoned(&self) -> &Abandoned {
        &self.abandoned
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: `start` and `length` are of our own mapping, and no slot exists any more: each holds the arena.
        if let Err(error) = unsafe { munmap(self.start.as_ptr().cast(), self.length) } {
            tracing::warn!(%error, "staging memory could not be unmapped");
        }
    }
}

/// One fixed part of an [`Arena`]; derefs to its bytes. There is never a second slot over the same bytes.
///
/// A peer that was given the address can write here whenever it likes: NIXL does not guard it. The stream reads a slot
/// only while the protocol has it on this side, and checks a digest; two ends of a stream are one trust domain.
#[derive(Debug)]
pub struct Slot {
    arena: Arc<Arena>,
    index: usize,
    size: usize,
}

impl Slot {
    /// Place in the ring, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Address of the slot's first byte in this process.
    pub fn address(&self) -> usize {
        self.arena.address() + self.index * self.size
    }
}

impl Deref for Slot {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range lies within the mapping (checked in `into_slots`), which lives as long as `arena`; it is
        // initialised (zeroed by the kernel); this is the only slot over it.
        unsafe { std::slice::from_raw_parts(self.address() as *const u8, self.size) }
    }
}

impl DerefMut for Slot {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.address() as *mut u8, self.size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_disjoint_and_outlive_the_handle() -> io::Result<()> {
        let (arena, mut slots) = Arena::new(3 * 4096)?.into_slots(3, 4096)?;
        assert_eq!(arena.address() % 4096, 0);
        drop(arena);
        for (value, slot) in slots.iter_mut().enumerate() {
            slot.fill(value as u8 + 1);
        }
        for (value, slot) in slots.iter().enumerate() {
            assert_eq!(slot.len(), 4096);
            assert!(slot.iter().all(|byte| usize::from(*byte) == value + 1));
        }
        Ok(())
    }

    #[test]
    fn slots_beyond_the_arena_are_refused() -> io::Result<()> {
        assert!(Arena::new(4096)?.into_slots(2, 4096).is_err());
        assert!(Arena::new(4096)?.into_slots(usize::MAX, 2).is_err());
        Ok(())
    }
}
