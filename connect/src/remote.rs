//! The memory of a peer, used in pieces like a file through a few slots of staging memory: for regions that are larger than
//! what this process has. One side of an operation of `nixl_connect`; the peer does not see the difference.

mod closing;
mod error;
mod layout;
mod memory;
mod reading;
mod shared;
mod staging;
mod state;
mod writing;

pub use error::RemoteError;
pub use memory::RemoteMemory;
pub use staging::Staging;
