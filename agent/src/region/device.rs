//! Memory of a GPU: control holds a descriptor or a handle of it and never loads CUDA; workers open either. A descriptor keeps
//! the memory, a handle does not: with it the pod that has given it must stay.

use std::os::fd::OwnedFd;

use nixl_transfer_crds::Reason;
use rustix::fs::{FileType, fcntl_get_seals, fstat, major};
use tokio::sync::oneshot;

use super::budget::Share;
use crate::protocol::{DeviceMemory, Failure, IpcHandle};

/// GPUs give memory in multiples of so many bytes.
pub const GRANULARITY: u64 = 2 << 20;

/// The kernel's number for NVIDIA's character devices; a descriptor of memory is one of /dev/nvidiactl.
const NVIDIA: u32 = 195;

/// Lets nothing in that could hang when it is closed: what NVIDIA's driver has made, or a memfd, which that driver refuses.
///
/// # Errors
/// What to hand over instead.
pub fn check_descriptor(descriptor: OwnedFd) -> Result<OwnedFd, String> {
    let is_nvidias = fstat(&descriptor).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && major(stat.st_rdev) == NVIDIA
    });
    if is_nvidias || fcntl_get_seals(&descriptor).is_ok() {
        return Ok(descriptor);
    }
    Err("the descriptor is no memory of a GPU; hand over what cuMemExportToShareableHandle gives".into())
}

/// A piece of memory of a GPU.
#[derive(Debug)]
pub struct GpuMemory {
    gpu: String,
    device: String,
    bytes: u64,
    held: Held,
    _share: Option<Share>,
    /// Dropped with it: whoever waits for that knows that control has let go.
    _gone: Option<oneshot::Sender<()>>,
}

/// How it is reached.
#[derive(Debug)]
enum Held {
    Descriptor(OwnedFd),
    Handle(IpcHandle),
}

impl GpuMemory {
    /// What a worker has allocated on the GPU with this UUID. `device` is how a status names it.
    pub fn allocated(gpu: String, device: String, bytes: u64, descriptor: OwnedFd, share: Share) -> Self {
        let held = Held::Descriptor(descriptor);
        Self { gpu, device, bytes, held, _share: Some(share), _gone: None }
    }

    /// What a workload has handed over, which a worker has looked at. The receiver ends, with an error, when nobody here has
    /// it any more.
    pub fn lent(
        device: String,
        memory: DeviceMemory,
        descriptor: Option<OwnedFd>,
    ) -> Option<(Self, oneshot::Receiver<()>)> {
        let DeviceMemory { gpu, bytes, handle } = memory;
        let held = match (descriptor, handle) {
            (Some(descriptor), None) => Held::Descriptor(descriptor),
            (None, Some(handle)) => Held::Handle(handle),
            _ => return None,
        };
        let (let_go, gone) = oneshot::channel();
        Some((Self { gpu, device, bytes, held, _share: None, _gone: Some(let_go) }, gone))
    }

    /// UUID of the GPU.
    pub fn gpu(&self) -> &str {
        &self.gpu
    }

    /// Its name in a status.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What a worker is told to open it, and what goes beside that.
    ///
    /// # Errors
    /// `IoError` when there is no room for another descriptor.
    pub fn to_open(&self) -> Result<(DeviceMemory, Vec<OwnedFd>), Failure> {
        let (handle, descriptors) = match &self.held {
            Held::Descriptor(descriptor) => {
                let copy = descriptor.try_clone().map_err(|error| {
                    Failure::new(
                        Reason::IoError,
                        format!("the descriptor of GPU memory cannot be copied: {error}"),
                    )
                })?;
                (None, vec![copy])
            }
            Held::Handle(handle) => (Some(handle.clone()), Vec::new()),
        };
        Ok((DeviceMemory { gpu: self.gpu.clone(), bytes: self.bytes, handle }, descriptors))
    }
}
