//! What a workload and the agent say to each other: JSON objects, each with its length before it (four bytes, most
//! significant first). The descriptor of an offer comes with the first byte of its message. Types only.

use serde::{Deserialize, Serialize};

/// Version of these messages.
pub const VERSION: u32 = 1;
/// Audience of the token.
pub const AUDIENCE: &str = "nixl-transfer.io";

/// What a workload says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum ToAgent {
    /// First message: who it is. Answered with `Welcome` or `Refused`.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// A service account's token, bound to the pod, with the audience [`AUDIENCE`].
        token: String,
    },
    /// Hands memory over, with one descriptor: a memfd, sealed against shrinking and growing and allocated whole, or what
    /// `cuMemExportToShareableHandle` gives for memory of a GPU. Answered with `Accepted` or `Refused`.
    Offer {
        /// Name of the MemoryRegion, in the pod's namespace.
        region: String,
        /// Length of the memory in bytes: that of the memfd, or of the GPU's memory.
        size: u64,
        /// Where the memory is: `cpu`, or the GPU's UUID as `nvidia-smi -L` shows it. An index would mean another GPU in another
        /// container.
        device: String,
        /// Memory of a GPU that is shared by a CUDA IPC handle; then there is no descriptor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ipc: Option<Ipc>,
    },
    /// Takes memory back. Answered with `Withdrawn` when no transfer can reach it any more.
    Withdraw {
        /// Name of the MemoryRegion.
        region: String,
    },
}

/// A CUDA IPC handle: whoever has it can use the memory as long as the pod lives.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ipc {
    /// The 64 bytes that `cudaIpcGetMemHandle` gives, in hexadecimal.
    pub handle: String,
    /// Length of the whole allocation in bytes: PyTorch cuts its tensors out of larger ones.
    pub allocation: u64,
    /// Where the memory begins in it, in bytes.
    #[serde(default)]
    pub offset: u64,
}

impl std::fmt::Debug for Ipc {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ipc").field("allocation", &self.allocation).finish_non_exhaustive()
    }
}

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum FromAgent {
    /// The token is good; this is what it says.
    Welcome {
        /// [`VERSION`].
        version: u32,
        /// Name of the node.
        node: String,
        /// Namespace of the pod.
        namespace: String,
        /// Name of the pod.
        pod: String,
    },
    /// The memory can be used.
    Accepted {
        /// Name of the MemoryRegion.
        region: String,
    },
    /// What was said cannot be done. Without `region` the connection is closed after it.
    Refused {
        /// Name of the MemoryRegion that it is about, if it is about one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
        /// One word, for programs.
        reason: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// No transfer reaches the memory any more.
    Withdrawn {
        /// Name of the MemoryRegion.
        region: String,
    },
    /// A transfer out of the memory or into it has finished.
    Finished {
        /// Name of the MemoryRegion.
        region: String,
        /// Name of the TransferJob.
        job: String,
        /// Whether the transfer wrote into the memory; else it read from it.
        wrote: bool,
        /// Whether all went well. After a failed transfer into the memory its content is undefined.
        succeeded: bool,
        /// Bytes that were moved, from the start of the memory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
        /// Their digest, with the algorithm.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<String>,
    },
    /// The agent has let go of the memory by itself.
    Ended {
        /// Name of the MemoryRegion.
        region: String,
        /// One word, for programs.
        reason: String,
        /// Why.
        message: String,
    },
}
