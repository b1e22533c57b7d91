//! What control, launcher and workers say to each other: JSON messages over Unix sockets, with file descriptors
//! beside them. Types only; `channel` moves them. A worker is not trusted: control checks all that comes from one.

pub mod channel;
mod device;
pub mod entry;
pub mod hex;

use nixl_transfer_crds::{Algorithm, Reason};
use serde::{Deserialize, Serialize};

pub use device::{DeviceMemory, IpcHandle};
use entry::{Entry, Totals};

/// Version of these messages; a launcher and workers of another version are refused.
pub const PROTOCOL_VERSION: u32 = 6;

/// Descriptors that one message may carry (the kernel's limit is 253).
pub const MAX_DESCRIPTORS: usize = 128;

/// Unique name of a worker: the NIXL agent's name, and what the status shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerName(pub String);

/// One hop within a worker; control numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HopId(pub u32);

/// Control to launcher.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToLauncher {
    /// First message; the launcher answers in kind.
    Hello { version: u32 },
    /// Start a worker. The message carries one descriptor: the worker's end of its socket to control.
    Spawn { worker: WorkerName },
    /// End a worker with SIGKILL. `Exited` follows when it is gone.
    Kill { worker: WorkerName },
}

/// Launcher to control.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromLauncher {
    /// Answer to `Hello`.
    Hello { version: u32, pid: u32 },
    /// A worker runs.
    Spawned { worker: WorkerName, pid: u32 },
    /// A worker could not be started.
    NotSpawned { worker: WorkerName, message: String },
    /// A worker's process is gone, whichever way; nothing can reach its memory any more.
    Exited { worker: WorkerName, status: String },
}

/// Control to worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// Heartbeat, answered with `Pong`. A worker that has not heard one for 20 s exits.
    Ping { sequence: u64 },
    /// First message: where NIXL is, and the name of the worker's NIXL agent. The worker loads library and plugin, and
    /// answers `Ready`. Nobody can reach the agent yet. `cuda` is NVIDIA's driver, by name or path; it is loaded when memory of
    /// a GPU is first used. `corrupt_chunk` is for tests of this project: the chunk of each
    /// sending hop with this number is damaged once, after its digest was made.
    Load { worker: WorkerName, library: String, plugins: String, cuda: String, corrupt_chunk: Option<u64> },
    /// The worker is given to a run: decides transports and devices, then agent and backend are created.
    Assign { network: Network },
    /// Takes up the sending side of a hop; answered with `Prepared`.
    OpenSource { hop: HopId, stream: StreamOptions },
    /// Takes up the receiving side of a hop; answered with `Prepared`. With `forward` also the sending side of the hop of
    /// that number, which sends on what the first one receives and is answered for with `Prepared` too; the first chunk
    /// is taken when it was told `ConnectRelay` or `Close`.
    OpenTarget { hop: HopId, stream: StreamOptions, read_back: bool, key: String, forward: Option<HopId> },
    /// The other side's metadata: for the source the target's RdmaMetadata (JSON), for the target the source's agent
    /// metadata (`b64:…`). `worker` is the name that the metadata must carry.
    Connect { hop: HopId, metadata: String, worker: WorkerName },
    /// Relay only: as `Connect` for a source. It gives up after so many seconds in which nothing could be sent on.
    ConnectRelay { hop: HopId, metadata: String, worker: WorkerName, progress_seconds: u64 },
    /// Source only: a part of the manifest, in order. The part with `totals` is the last.
    Manifest { hop: HopId, entries: Vec<Entry>, totals: Option<Totals> },
    /// Source only: regular files of the manifest, opened for reading, one descriptor each, ascending. Directories and
    /// links have none. Control keeps a window of files ahead of `Consumed`.
    Files { hop: HopId, files: Vec<FileToRead> },
    /// Target only: partial files, opened for writing, ascending; the descriptors follow in the same order, and after each
    /// one that is to be compared one more, of the file that stands at the destination.
    Partials { hop: HopId, files: Vec<FileToWrite> },
    /// Source only: the file of the manifest is the memory that a workload exposes by this RdmaMetadata. `expected` is its
    /// digest, where the workload has said so.
    FromExternal {
        hop: HopId,
        metadata: String,
        #[serde(with = "hex::optional")]
        expected: Option<Vec<u8>>,
    },
    /// Target only: the file of the manifest goes into the memory that a workload exposes by this RdmaMetadata.
    IntoExternal { hop: HopId, metadata: String },
    /// Source only: the file of the manifest is memory of a GPU.
    FromDevice { hop: HopId, memory: DeviceMemory },
    /// Target only: the file of the manifest goes into memory of a GPU.
    IntoDevice { hop: HopId, memory: DeviceMemory },
    /// Allocates memory of a GPU, zeroed; answered with `Allocated` or `Refused`. For a worker that does nothing else.
    Allocate { gpu: String, bytes: u64 },
    /// Looks whether memory of a GPU is what a workload says; answered with `Looked` or `Refused`. For a worker that does
    /// nothing else: what it opens is input of an untrusted party and may end it.
    Look { memory: DeviceMemory },
    /// All is well: the workload whose memory was used is told. Answered with `Completed`.
    Complete { hop: HopId },
    /// Target only: all that was `Stored` is committed and the hop is over.
    Finished { hop: HopId },
    /// Ends a source's hop; the worker goes on with its others. A target's hop is ended by killing the worker.
    Close { hop: HopId },
}

/// Files that control opens ahead of what the worker has finished with, per hop: at least so many. It may open more where
/// the limit of open files allows (`control/window.rs`).
pub const OPEN_WINDOW: usize = 256;

/// Worker to control.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromWorker {
    /// Answer to `Ping`.
    Pong { sequence: u64 },
    /// Answer to `Load`.
    Ready { nixl_version: String, backends: Vec<BackendFacts>, memlock: Option<u64> },
    /// NIXL could not be loaded, or did not take the network; the worker exits.
    NotReady { message: String },
    /// Answer to `OpenSource` (agent metadata) or `OpenTarget` (RdmaMetadata).
    Prepared { hop: HopId, metadata: String },
    /// Target only: what UCX moves this hop's bytes with, by its own words. Said once the other side is connected, and
    /// again if it changes.
    Uses { hop: HopId, used: Used },
    /// What a hop has moved so far; sent at most once a second and only when it changed.
    Progress { hop: HopId, counters: Counters },
    /// Source only: it is done with the regular files below this index of the manifest. The digests are of files that
    /// it has read and that did not change meanwhile.
    Consumed { hop: HopId, below: u32, digests: Vec<FileDigest> },
    /// Target only: a part of the manifest as it came over the stream; the part with `totals` is the last. Control
    /// prepares the destination and answers with `Partials`, as many as its window allows.
    Manifest { hop: HopId, entries: Vec<Entry>, totals: Option<Totals> },
    /// Target only: the first `length` bytes of a partial file have this digest and were synced. 0: what was durable is
    /// about to be written over.
    Durable {
        hop: HopId,
        index: u32,
        length: u64,
        #[serde(with = "hex")]
        digest: Vec<u8>,
    },
    /// Target only: these files are complete in their partials, verified against the source's digest and synced.
    Stored { hop: HopId, files: Vec<StoredFile> },
    /// Target only: every file is stored and the stream has ended well. Control commits and answers `Finished`.
    Received { hop: HopId, counters: Counters },
    /// Source only: everything was sent and the target has taken it.
    Sent { hop: HopId, counters: Counters },
    /// Answer to `Allocate`, with the one descriptor that a worker ever sends: it keeps the memory.
    Allocated,
    /// Answer to `Look`: it is.
    Looked,
    /// Answer to `Allocate` and `Look`: why not.
    Refused { failure: Failure },
    /// Answer to `Complete`: the workload was told.
    Completed { hop: HopId },
    /// The hop failed in this worker. The worker has stopped working on it.
    Failed { hop: HopId, failure: Failure },
}

/// How chunks of a hop are made.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct StreamOptions {
    /// Bytes of one chunk.
    pub chunk_size: u64,
    /// Chunks under way at once.
    pub in_flight: u32,
    /// Most bytes per second, if they are limited.
    pub bytes_per_second: Option<u64>,
    /// Digest of a file's content.
    pub algorithm: Algorithm,
    /// Give up after so many seconds without a chunk.
    pub progress_seconds: u64,
    /// Give up waiting for the other side's first sign after so many seconds.
    pub connect_seconds: u64,
}

/// The network a worker uses: decided by control, never inherited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// UCX transports that are allowed, for example `tcp`.
    pub transports: Vec<String>,
    /// Network devices by name; empty lets UCX choose.
    pub devices: Vec<String>,
    /// Processors that the worker runs on: those near its devices. Empty lets the kernel choose.
    pub cpus: Vec<u32>,
}

/// What UCX moves bytes with, in its own names; both empty when it has said nothing that is understood.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Transports, for example `tcp`, `cma`, `rc_mlx5`.
    pub transports: Vec<String>,
    /// Network devices, for example `eth0`, `mlx5_0:1`; memory is none.
    pub devices: Vec<String>,
}

/// What NIXL says about a backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackendFacts {
    /// Its name.
    pub name: String,
    /// Kinds of memory it moves.
    pub memory_types: Vec<String>,
}

/// Counters of a hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Bytes of file content that were sent (source), or that are verified and in place (target).
    pub bytes: u64,
    /// Target: of `bytes`, those that were here before and were not sent.
    pub resumed: u64,
    /// Grows while something is compared instead of moved, here or further down a chain: a sign of work, no amount.
    pub signs: u64,
    /// Regular files that are complete.
    pub files: u64,
    /// Chunks that had to be sent again.
    pub resent: u64,
}

/// A file that a source's worker reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileToRead {
    /// Its place in the manifest.
    pub index: u32,
    /// Digest of its content, where it is known from before.
    #[serde(with = "hex::optional")]
    pub known: Option<Vec<u8>>,
    /// Whether it is memory: its bytes may change, and what counts is what was read.
    pub memory: bool,
}

/// A file that a target's worker writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileToWrite {
    /// Its place in the manifest.
    pub index: u32,
    /// Whether what stands at the destination is compared with it; its descriptor follows then.
    pub compare: bool,
    /// Digest of what stands there, where it is known from before.
    #[serde(with = "hex::optional")]
    pub known: Option<Vec<u8>>,
    /// What an earlier attempt has made durable of it in the partial file.
    pub prefix: Option<Prefix>,
    /// Whether it is memory: it keeps its length, and there is no disk to bring it to.
    pub memory: bool,
}

/// The first bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix {
    /// How many.
    pub length: u64,
    /// Their digest.
    #[serde(with = "hex")]
    pub digest: Vec<u8>,
}

/// The digest of a file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// The file's place in the manifest.
    pub index: u32,
    /// The digest.
    #[serde(with = "hex")]
    pub digest: Vec<u8>,
}

/// A file that a target's worker has finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Its place in the manifest.
    pub index: u32,
    /// Digest of its content, equal to what the source said.
    #[serde(with = "hex")]
    pub digest: Vec<u8>,
    /// Whether the file that stood at the destination has the same content.
    pub identical: bool,
}

/// Why something failed, for a status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Failure {
    /// From the closed list.
    pub reason: Reason,
    /// What happened and what to do.
    pub message: String,
}

impl Failure {
    /// A failure with its message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// On the wire a reason is its name; an unknown one from a worker is an error of the message.
impl Serialize for Failure {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.reason.as_str(), &self.message).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Failure {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (reason, message) = <(String, String)>::deserialize(deserializer)?;
        let reason = Reason::parse(&reason)
            .ok_or_else(|| serde::de::Error::custom(format!("unknown reason {reason:?}")))?;
        Ok(Self { reason, message })
    }
}
