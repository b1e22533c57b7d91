//! Memory of a GPU as one end of a hop. NIXL never sees it: bytes are copied between the stream's slots and the GPU by way of
//! small pinned ones, since over TCP NIXL's own way is twenty times slower (fact 14 of `docs/measured/gpu.md`). Also what
//! control cannot do without CUDA: allocating such memory, and looking at what a workload hands over.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nixl_transfer_crds::Reason;
use nixl_transfer_gpu::{
    Absent, Access, Allocation, Context, Copier, Driver, GpuError, Mapped, Uuid,
    ipc::{self, Announced, Handle},
};

use crate::protocol::{DeviceMemory, Failure};

/// How long filling new memory with zeros may take: some 0.1 s for a whole GPU.
const ZEROED_WITHIN: Duration = Duration::from_secs(30);
/// CUDA's error for a lack of memory.
const OUT_OF_MEMORY: u32 = 2;
/// And for a handle whose holder has ended.
const INVALID_HANDLE: u32 = 400;
/// And for one of a process with the same number.
const INVALID_CONTEXT: u32 = 201;

/// Memory that control has named, not opened yet.
#[derive(Debug)]
pub(super) struct Named {
    memory: DeviceMemory,
    descriptor: Option<OwnedFd>,
}

impl Named {
    /// Puts a message and its descriptors together; `None` when they do not fit.
    pub(super) fn new(memory: DeviceMemory, descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut descriptors = descriptors.into_iter();
        let descriptor = descriptors.next();
        let fits = descriptor.is_none() == memory.handle.is_some() && descriptors.next().is_none();
        fits.then_some(Self { memory, descriptor })
    }

    /// Maps it. Touches no byte.
    fn map(&self, library: &str, access: Access) -> Result<Mapped, Failure> {
        let DeviceMemory { gpu, bytes, handle } = &self.memory;
        let context = context(library, gpu)?;
        let mapped = match (handle, &self.descriptor) {
            (Some(handle), _) => Handle::from_bytes(&handle.bytes).and_then(|bytes_of| {
                let (allocation, offset) = (handle.allocation, handle.offset);
                let announced = Announced { handle: bytes_of, allocation, offset, bytes: *bytes };
                ipc::open(&context, &announced, access)
            }),
            (None, Some(descriptor)) => Mapped::import(descriptor.as_fd(), &context, *bytes, access),
            (None, None) => {
                return Err(Failure::new(Reason::WorkerLost, "no descriptor came with GPU memory"));
            }
        };
        mapped.map_err(|error| failed("cannot be opened", &error))
    }
}

/// Memory of a GPU in the hands of one hop.
#[derive(Debug)]
pub(super) struct Device {
    copier: Copier,
}

impl Device {
    /// Opens it. `patience` is the longest time that one copy may take.
    pub(super) fn open(
        named: &Named,
        library: &str,
        access: Access,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let memory = Arc::new(named.map(library, access)?);
        let copier = Copier::new(memory, patience).map_err(|error| failed("cannot be copied", &error))?;
        Ok(Self { copier })
    }

    /// Its length.
    pub(super) fn bytes(&self) -> u64 {
        self.copier.memory().len()
    }

    /// Reads the bytes at `offset`.
    pub(super) fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        self.copier.read(offset, buffer).map_err(|error| failed("cannot be read", &error))
    }

    /// Writes the bytes at `offset`.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.copier.write(offset, bytes).map_err(|error| failed("cannot be written", &error))
    }
}

/// Allocates memory, zeroed. Whoever has the descriptor keeps it, without CUDA too.
pub(super) fn allocate(library: &str, gpu: &str, bytes: u64) -> Result<OwnedFd, Failure> {
    let allocated = Allocation::create(&context(library, gpu)?, bytes, ZEROED_WITHIN);
    match allocated {
        Ok(allocation) => Ok(allocation.into_descriptor()),
        Err(GpuError::Cuda(error)) if error.code() == OUT_OF_MEMORY => {
            let message = format!(
                "{bytes} bytes of GPU {gpu} cannot be allocated: {error}; look at `nvidia-smi` for who has its memory"
            );
            Err(Failure::new(Reason::RegionNotReady, message))
        }
        Err(error) => Err(failed("cannot be allocated", &error)),
    }
}

/// Looks at what a workload hands over: whether it is memory of this GPU, and as long as is said.
pub(super) fn look(library: &str, named: &Named) -> Result<(), Failure> {
    named.map(library, Access::ReadWrite).map(drop)
}

/// The context of a GPU in this process.
fn context(library: &str, gpu: &str) -> Result<Arc<Context>, Failure> {
    let no_device = |message: String| Failure::new(Reason::NoSuchDevice, message);
    let uuid: Uuid = gpu.parse().map_err(|error| no_device(format!("GPU {gpu}: {error}")))?;
    let driver =
        Driver::load_from(library).map_err(|absent: Absent| no_device(format!("GPU {gpu}: {absent}")))?;
    let device = driver.device(uuid).map_err(|error| failed("cannot be looked for", &error.into()))?;
    let device = device.ok_or_else(|| {
        no_device(format!("CUDA shows no GPU {gpu} to the agent's workers; look at CUDA's devices in the launcher's container"))
    })?;
    Context::retain(&device).map_err(|error| failed("has no context", &error))
}

/// Whether CUDA is of no more use in this process: then it must end, and another worker try again.
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// Whether the worker must end when it has said why.
pub(super) fn is_over() -> bool {
    IS_OVER.load(Ordering::Relaxed)
}

/// Why GPU memory cannot be used.
fn failed(what: &str, error: &GpuError) -> Failure {
    if error.is_end_of_process() {
        IS_OVER.store(true, Ordering::Relaxed);
    }
    let message = match error {
        // A workload learns nothing here about memory that is not its own.
        GpuError::Size { announced, .. } => {
            format!("GPU memory {what}: its allocation is not of the {announced} bytes that were announced")
        }
        error => format!("GPU memory {what}: {error}"),
    };
    let reason = match error {
        GpuError::TimedOut { .. } | GpuError::Over => Reason::ProgressDeadlineExceeded,
        GpuError::Range { .. } | GpuError::Size { .. } | GpuError::Length(_) => Reason::LengthMismatch,
        GpuError::Device { .. } => Reason::RegionNotReady,
        GpuError::Cuda(error) if matches!(error.code(), OUT_OF_MEMORY | INVALID_HANDLE) => {
            Reason::RegionNotReady
        }
        GpuError::Cuda(error) if error.code() == INVALID_CONTEXT => {
            let remedy = "its process has the number that our worker has: give the pod's process another than 1, or share a descriptor";
            return Failure::new(Reason::RegionNotReady, format!("{message}; {remedy}"));
        }
        _ => Reason::WorkerLost,
    };
    Failure::new(reason, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::IpcHandle;

    #[test]
    fn a_descriptor_or_a_handle_and_never_both() {
        let named = |is_handle: bool, descriptors: usize| {
            let handle = is_handle.then(|| IpcHandle { bytes: vec![0; 64], allocation: 1, offset: 0 });
            let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
            let descriptors = std::iter::repeat_with(null).take(descriptors).collect();
            Named::new(DeviceMemory { gpu: "GPU-x".into(), bytes: 1, handle }, descriptors).is_some()
        };
        for (is_handle, descriptors, fits) in
            [(false, 1, true), (true, 0, true), (false, 0, false), (true, 1, false), (false, 2, false)]
        {
            assert_eq!(named(is_handle, descriptors), fits, "{is_handle} {descriptors}");
        }
    }

    #[test]
    fn without_a_driver_there_is_no_such_device() {
        let of = |gpu: &str| allocate("/nowhere/libcuda.so.1", gpu, 1).unwrap_err();
        let absent = of("GPU-0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9");
        assert!(absent.reason == Reason::NoSuchDevice && absent.message.contains("No such file"), "{absent}");
        assert!(of("cuda:0").message.contains("no UUID"), "{}", of("cuda:0"));
    }

    #[test]
    fn reasons() {
        for (error, reason) in [
            (GpuError::Length(0), Reason::LengthMismatch),
            (GpuError::Size { announced: 1, found: 2 }, Reason::LengthMismatch),
            (GpuError::Device { announced: 1, found: 0 }, Reason::RegionNotReady),
            (GpuError::ReadOnly, Reason::WorkerLost),
        ] {
            assert_eq!(failed("x", &error).reason, reason, "{error}");
        }
    }
}
