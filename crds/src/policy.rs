//! How data is moved, proven and written. Types with their defaults; no list items here, so schema defaults are safe.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;

/// A NIXL backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Backend {
    /// UCX: TCP, shared memory and RDMA.
    #[serde(rename = "UCX")]
    Ucx,
}

/// Which networks a transfer may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Require {
    /// The best network that both nodes have.
    #[default]
    Any,
    /// RDMA only: a node without it fails with `BackendUnavailable` instead of going over TCP.
    Rdma,
}

/// How many receivers get their copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum FanOut {
    /// A chain from two receivers on, else direct.
    #[default]
    Auto,
    /// The source sends to each receiver.
    Direct,
    /// The source sends to the first receiver, and each receiver sends every chunk on to the next one while it stores it.
    Chain,
}

/// Who moves the bytes of a hop. Decided by the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Direction {
    /// The source writes into the target's memory: the source is active, the target passive.
    Write,
}

/// How the bytes travel.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transport {
    /// NIXL backends in order of preference.
    #[serde(default = "default_backends")]
    #[schemars(length(min = 1, max = 8))]
    pub backends: Vec<Backend>,
    /// Which networks are acceptable.
    #[serde(default)]
    pub require: Require,
    /// How many receivers get their copy.
    #[serde(default)]
    pub fan_out: FanOut,
    /// Size of one chunk, a quantity of bytes.
    #[serde(default = "default_chunk_size")]
    #[schemars(schema_with = "crate::schema::chunk_size")]
    pub chunk_size: Quantity,
    /// Chunks of one hop under way at once. Staging memory of a hop is `chunkSize` times `inFlight` on each end.
    #[serde(default = "default_in_flight")]
    #[schemars(range(min = 1, max = 64))]
    pub in_flight: i32,
    /// Most bytes per second of each hop, a quantity from 64Ki on, exact within 5 % over two seconds. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::bandwidth_limit")]
    pub bandwidth_limit: Option<Quantity>,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            backends: default_backends(),
            require: Require::default(),
            fan_out: FanOut::default(),
            chunk_size: default_chunk_size(),
            in_flight: default_in_flight(),
            bandwidth_limit: None,
        }
    }
}

fn default_backends() -> Vec<Backend> {
    vec![Backend::Ucx]
}

fn default_chunk_size() -> Quantity {
    Quantity::from_bytes(1 << 20)
}

fn default_in_flight() -> i32 {
    8
}

/// The digest that proves a file's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Algorithm {
    /// XXH3, 128 bits: the fastest, against accidents.
    #[default]
    #[serde(rename = "XXH3")]
    Xxh3,
    /// CRC-64/NVME, as object stores publish it.
    #[serde(rename = "CRC64NVME")]
    Crc64Nvme,
    /// BLAKE3, 256 bits: also against an adversary.
    #[serde(rename = "BLAKE3")]
    Blake3,
}

/// How the content is proven. There is no way to turn it off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Integrity {
    /// The digest of a file's content.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Read every file back from the destination's storage before it gets its name, and compare that digest too.
    #[serde(default)]
    pub read_back: bool,
}

/// What happens to a destination file that exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum WritePolicy {
    /// A file whose digest is equal stays as it is; another is replaced.
    #[default]
    SkipIdentical,
    /// Every file is replaced.
    Overwrite,
    /// A file that exists fails the transfer with `DestinationExists`, before any of it is changed.
    FailIfExists,
}

/// What makes a job run again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum RerunPolicy {
    /// A change of what is moved, or of `trigger`.
    #[default]
    OnSpecChange,
    /// A change of `trigger` only; `source` and `destinations` cannot be changed.
    Never,
}

/// When waiting and moving end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deadlines {
    /// Seconds that a hop may wait for a node, an agent or a lock on its destination.
    #[schemars(range(min = 1))]
    pub pending_seconds: i64,
    /// Seconds that a moving hop may go without moving a byte.
    #[schemars(range(min = 1))]
    pub progress_seconds: i64,
}
