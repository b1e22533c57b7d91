//! Local memory: the arena that is mapped by us, its slots, rings of them, and the memory of descriptors.

mod arena;
mod owned;
mod ring;

pub use arena::{Arena, Slot};
pub use owned::MemoryError;
pub(crate) use owned::{InFlight, Memory};
pub(crate) use ring::Ring;
pub use ring::{MAX_CHUNK_SIZE, MAX_RING_BYTES, MAX_SLOTS};
