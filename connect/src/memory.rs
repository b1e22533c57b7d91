//! Local memory: the arena that is mapped by us, its slots, and the memory of descriptors.

mod arena;
mod owned;

pub use arena::{Arena, Slot};
pub use owned::MemoryError;
pub(crate) use owned::{InFlight, Memory};
