//! The memory of a descriptor: mapped by us, a vector's, or lent by the caller. It stays where it is until it is dropped.
#![allow(unsafe_code)] // keeping a vector's bytes by address

use std::any::Any;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Arena;
use crate::device::Device;
use crate::metadata::SerializedDescriptor;
use crate::session::{Abandoned, Backing};

/// Why memory cannot be a descriptor's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// Numbers that make no sense.
    #[error("no memory for a descriptor: {0}")]
    Range(&'static str),
    /// The system has none.
    #[error("no memory for a descriptor: {0}")]
    System(#[from] std::io::Error),
}

pub(crate) struct Memory {
    range: SerializedDescriptor,
    keeper: Keeper,
    /// Transfers that may be reading or writing it at this moment.
    in_flight: AtomicUsize,
    abandoned: Abandoned,
}

/// Says that a transfer may be using the memory, for as long as this value lives.
pub(crate) struct InFlight(Arc<Memory>);

impl InFlight {
    pub(crate) fn new(memory: Arc<Memory>) -> Self {
        memory.in_flight.fetch_add(1, Ordering::AcqRel);
        Self(memory)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Who gives the memory back.
enum Keeper {
    /// Its drop unmaps it.
    Mapped(#[allow(dead_code)] Arena),
    /// A vector, kept by its parts: an owner that could be dereferenced must not exist while NIXL writes the bytes.
    Vector { capacity: usize },
    /// Its drop tells the caller; `None` once it has.
    Caller(Option<Box<dyn Any + Send + Sync>>),
}

impl Memory {
    pub(crate) fn zeroed(size: usize) -> Result<Self, MemoryError> {
        if size == 0 {
            return Err(MemoryError::Range("size is 0"));
        }
        let arena = Arena::new(size)?;
        Ok(Self::of(arena.range(), Keeper::Mapped(arena)))
    }

    pub(crate) fn from_vec(bytes: Vec<u8>) -> Result<Self, MemoryError> {
        if bytes.is_empty() {
            return Err(MemoryError::Range("size is 0"));
        }
        let mut bytes = ManuallyDrop::new(bytes);
        let range = SerializedDescriptor {
            device: Device::Cpu,
            ptr: bytes.as_mut_ptr() as u64,
            size: bytes.len() as u64,
        };
        Ok(Self::of(range, Keeper::Vector { capacity: bytes.capacity() }))
    }

    pub(crate) fn lent(
        device: Device,
        ptr: u64,
        size: u64,
        owner: Box<dyn Any + Send + Sync>,
    ) -> Result<Self, MemoryError> {
        let range = SerializedDescriptor { device, ptr, size };
        match range.fault() {
            Some(fault) => Err(MemoryError::Range(fault)),
            None => Ok(Self::of(range, Keeper::Caller(Some(owner)))),
        }
    }

    fn of(range: SerializedDescriptor, keeper: Keeper) -> Self {
        Self { range, keeper, in_flight: AtomicUsize::new(0), abandoned: Abandoned::default() }
    }

    /// Whether a transfer may be using it.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }

    /// First byte and length of memory that nobody outside of this crate owns.
    pub(crate) fn owned(&self) -> Option<(*mut u8, usize)> {
        match self.keeper {
            Keeper::Mapped(_) | Keeper::Vector { .. } => {
                Some((self.range.ptr as *mut u8, self.range.size as usize))
            }
            Keeper::Caller(_) => None,
        }
    }
}

impl Backing for Memory {
    fn range(&self) -> SerializedDescriptor {
        self.range
    }

    fn abandoned(&self) -> &Abandoned {
        &self.abandoned
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match &mut self.keeper {
            Keeper::Mapped(_) => {}
            Keeper::Vector { capacity } => {
                let (start, length) = (self.range.ptr as *mut u8, self.range.size as usize);
                // SAFETY: these are the parts of the vector that `from_vec` took, and nobody else has taken it back.
                drop(unsafe { Vec::from_raw_parts(start, length, *capacity) });
            }
            Keeper::Caller(owner) => drop_owner(owner.take(), self.range),
        }
    }
}

/// The caller's code, which may run on a session's thread: its panic must not end that one, and with it all operations.
fn drop_owner(owner: Option<Box<dyn Any + Send + Sync>>, memory: SerializedDescriptor) {
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(owner)));
    if let Err(panic) = dropped {
        tracing::error!(?memory, "the owner of a descriptor's memory panicked when it was dropped");
        // What a panic carries may panic too.
        std::mem::forget(panic);
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Memory").field("range", &self.range).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_stays_where_it_is() {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(b"bytes");
        let address = bytes.as_ptr() as u64;
        let memory = Memory::from_vec(bytes).unwrap();
        assert_eq!(memory.range(), SerializedDescriptor { device: Device::Cpu, ptr: address, size: 5 });
    }

    #[test]
    fn a_callers_owner_is_dropped_with_the_memory() {
        let owner = Arc::new(());
        let memory = Memory::lent(Device::Cuda(1), 4096, 64, Box::new(Arc::clone(&owner))).unwrap();
        assert!(memory.owned().is_none());
        assert_eq!(Arc::strong_count(&owner), 2);
        drop(memory);
        assert_eq!(Arc::strong_count(&owner), 1);
    }

    #[test]
    fn a_callers_owner_that_panics_does_not_end_the_thread() {
        struct FakeOwner {
            _holds: Arc<()>,
        }

        impl Drop for FakeOwner {
            fn drop(&mut self) {
                panic!("the owner's drop");
            }
        }

        let owner = Arc::new(());
        let memory =
            Memory::lent(Device::Cpu, 4096, 64, Box::new(FakeOwner { _holds: Arc::clone(&owner) })).unwrap();
        drop(memory);
        assert_eq!(Arc::strong_count(&owner), 1, "what the owner holds is dropped all the same");
    }

    #[test]
    fn senseless_memory_is_refused() {
        assert!(Memory::zeroed(0).is_err());
        assert!(Memory::from_vec(Vec::with_capacity(8)).is_err());
        for (ptr, size) in [(0, 1), (1, 0), (u64::MAX, 2)] {
            assert!(Memory::lent(Device::Cpu, ptr, size, Box::new(())).is_err(), "{ptr} {size}");
        }
    }
}
