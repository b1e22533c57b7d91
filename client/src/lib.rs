//! Hands memory of a pod over to the agent of its node, so that a TransferJob can read or write it, and hears when a
//! transfer has finished. The pod needs the agent's socket (a directory of the host, mounted) and a projected token of its
//! service account with the audience [`AUDIENCE`]; a MemoryRegion with `workload: {}` must exist in the pod's namespace.
//!
//! ```no_run
//! use std::{fs, path::Path, time::Duration};
//! use std::os::unix::fs::FileExt;
//! use nixl_transfer_client::{Event, Workload, shared_memory};
//!
//! let memory = shared_memory(64 << 20)?;
//! memory.write_all_at(b"what others shall get", 0)?;
//! let token = fs::read_to_string("/var/run/secrets/nixl-transfer.io/token")?;
//! let mut agent = Workload::connect(Path::new("/run/nixl-transfer/workload.sock"), &token, Duration::from_secs(10))?;
//! agent.hand_over("kv-buffer", &memory, 64 << 20, Duration::from_secs(60))?;
//! // As long as `agent` lives, jobs can use the memory.
//! if let Event::Finished { job, .. } = agent.next(Duration::from_secs(600))? {
//!     println!("{job} has finished");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The protocol stands in [`wire`], and in words in `docs/workload-memory.md`. A client in Python without dependencies is
//! beside this crate, in `python`.

#![warn(missing_docs)]

mod framing;
pub mod wire;
mod workload;

pub use framing::{Decoder, FrameError, MAX_BODY, encode, receive, send};
pub use wire::{AUDIENCE, Ipc};
pub use workload::{ClientError, Event, GpuMemory, Workload, shared_memory};
