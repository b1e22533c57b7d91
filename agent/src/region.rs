//! The memory regions of this node: what the agent holds for each MemoryRegion, who uses it, and what it contains. Does no
//! Kubernetes; `control::regions` brings the objects here and writes back what is known. GPU memory is not held yet.

pub mod budget;
pub mod host;
pub mod memory;
pub mod source;
mod table;
pub mod target;
mod usage;

pub use budget::Budget;
pub use host::HostMemory;
pub use memory::{Memory, Offer, Offered};
pub use source::RegionSource;
pub use table::{Content, Region, Regions, Shown};
pub use target::RegionTarget;
pub use usage::{Reading, Writing, or_never};

/// Namespace and name of a MemoryRegion.
pub type RegionKey = (String, String);
