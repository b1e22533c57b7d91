//! Memory of NVIDIA GPUs: allocate it, hand it on as a descriptor, map it in another process, copy it to and from slots in
//! pinned host memory. Knows nothing of NIXL or Kubernetes. Nothing is linked: libcuda is opened at run time, and a machine
//! without GPUs gets [`Absent`].
//!
//! ```no_run
//! use std::{sync::Arc, time::Duration};
//! use nixl_transfer_gpu::{Access, Allocation, Context, Copier, Driver, Mapped};
//!
//! let patience = Duration::from_secs(10);
//! let gpu = Driver::load()?.devices()?.swap_remove(0);
//! let context = Context::retain(&gpu)?;
//! // Zeroed. From here on the descriptor alone keeps it, in this process or in another, with or without CUDA.
//! let allocation = Allocation::create(&context, 64 << 20, patience)?;
//!
//! let memory = Arc::new(Mapped::import(allocation.descriptor(), &context, allocation.bytes(), Access::ReadWrite)?);
//! let mut copier = Copier::new(memory, patience)?;
//! copier.write(0, b"weights")?;
//! let mut sum = 0_u64;
//! copier.digest_with(0..7, |piece| sum += piece.iter().map(|byte| u64::from(*byte)).sum::<u64>())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What decides its shape was measured, `docs/measured/gpu.md`:
//! - A context costs about 0.2 s and 518 MiB of the GPU (fact 25), so a process takes one only when it touches bytes. Control
//!   holds a region by its descriptor alone and never calls CUDA (fact 23).
//! - After [`Driver::load`] a process must not fork and go on in the child; fork and exec is fine (fact 10).
//! - What is lost is the process: after a copy that never ended, or an error that kills the context, nothing here works any
//!   more, and nothing is freed that the GPU may still be using. [`GpuError::is_end_of_process`] says when.
//! - Calls of the driver have no deadline: one that hangs in the kernel hangs its thread. Copies are waited for by asking,
//!   with a deadline; for the rest, whoever owns the process watches it.

#![warn(missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks)]

mod calls;
mod context;
mod copy;
mod driver;
mod error;
#[cfg(test)]
mod fake;
mod ids;
pub mod ipc;
mod mapped;
mod memory;
mod pinned;
mod range;
mod stream;

pub use calls::LIBRARY;
pub use context::{Context, Current};
pub use copy::{Copier, SLOT_BYTES};
pub use driver::{Absent, Device, Driver};
pub use error::{CudaError, GpuError};
pub use ids::{IdError, PciAddress, Uuid};
pub use mapped::{Access, Mapped};
pub use memory::Allocation;
pub use pinned::Pinned;
