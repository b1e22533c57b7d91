//! The four operations of `nixl_connect`: Read with Readable, Write with Writable. Each is a state that the session's
//! thread changes and its holder waits on.

mod active;
mod completion;
mod error;
#[cfg(doctest)]
mod lifetimes;
mod passive;
mod plan;
mod starting;
mod state;
mod waiting;

pub use active::{ActiveOperation, ReadOperation, WriteOperation};
pub use completion::Completion;
pub use error::{ErrorClass, OperationError, Refused};
pub use passive::{PassiveOperation, ReadableOperation, WritableOperation};
pub use starting::{Startable, Starting};
