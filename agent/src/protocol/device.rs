//! Memory of a GPU in the messages between control and workers: enough to reach it from any process of the node.

use serde::{Deserialize, Serialize};

/// A piece of memory of a GPU. Without a handle a descriptor comes with the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMemory {
    /// UUID of the GPU, as NVML and CUDA have it: indices differ from process to process.
    pub gpu: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// How it is shared, where that is not by a descriptor.
    pub handle: Option<IpcHandle>,
}

/// A CUDA IPC handle, and which part of its allocation is meant. A capability.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpcHandle {
    /// What `cudaIpcGetMemHandle` gives.
    #[serde(with = "super::hex")]
    pub bytes: Vec<u8>,
    /// Length of the whole allocation in bytes.
    pub allocation: u64,
    /// Where the part begins, in bytes.
    pub offset: u64,
}

impl std::fmt::Debug for IpcHandle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("IpcHandle").field("allocation", &self.allocation).finish_non_exhaustive()
    }
}
