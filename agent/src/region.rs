//! The memory regions of this node: what the agent holds for each MemoryRegion, who uses it, and what it contains. Does no
//! Kubernetes; `control::regions` brings the objects here and writes back what is known. Memory of
//! a GPU is held by what workers need to open it.

pub mod budget;
pub mod device;
pub mod host;
pub mod memory;
pub mod source;
mod table;
pub mod target;
mod usage;

pub use budget::{Budget, Budgets};
pub use device::GpuMemory;
pub use host::HostMemory;
pub use memory::{Memory, Offer, Offered};
pub use source::RegionSource;
pub use table::{Content, Region, Regions, Shown};
pub use target::RegionTarget;
pub use usage::{Reading, Writing, or_never};

/// Namespace and name of a MemoryRegion.
pub type RegionKey = (String, String);
