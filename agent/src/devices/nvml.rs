//! The GPUs of this node by NVML, which comes with NVIDIA's driver and is opened at run time. Blocks, for seconds on a machine
//! whose GPUs sleep, and without end beside a sick driver: whoever calls it has a deadline.

use nvml_wrapper::{Device, Nvml, error::NvmlError};
use tracing::warn;

use super::pci::Address;

/// The name that every driver has; the one without a version is of development packages.
pub const LIBRARY: &str = "libnvidia-ml.so.1";

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// NVML's index.
    pub index: u32,
    /// NVML's UUID.
    pub uuid: String,
    /// The model.
    pub model: String,
    /// Memory in bytes, if there is some of its own.
    pub memory: Option<u64>,
    /// PCI address.
    pub address: Option<Address>,
}

/// Why there are no GPUs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    /// The library is not installed: the normal case without GPUs.
    #[error("{0}")]
    NoLibrary(String),
    /// It is there and fails.
    #[error("NVML fails: {0}; look at `nvidia-smi` and the driver's messages in the kernel log")]
    Failed(String),
}

/// All GPUs that NVML, a library by its name or path, can read, by index. Ends NVML again, so that a driver can be replaced
/// under a running agent.
pub fn gpus(library: &str) -> Result<Vec<Gpu>, Absent> {
    let nvml = Nvml::builder().lib_path(library.as_ref()).init().map_err(|error| absent(library, &error))?;
    let count = nvml.device_count().map_err(|error| absent(library, &error))?;
    let mut gpus = Vec::new();
    for index in 0..count {
        match nvml.device_by_index(index).and_then(|device| gpu(index, &device)) {
            Ok(gpu) => gpus.push(gpu),
            // One that has fallen off the bus leaves the others usable.
            Err(error) => warn!(index, %error, "a GPU cannot be read and is not shown"),
        }
    }
    Ok(gpus)
}

fn gpu(index: u32, device: &Device<'_>) -> Result<Gpu, NvmlError> {
    Ok(Gpu {
        index,
        uuid: device.uuid()?,
        model: device.name().unwrap_or_default(),
        memory: device.memory_info().ok().map(|memory| memory.total),
        address: device.pci_info().ok().and_then(|pci| Address::parse(&pci.bus_id)),
    })
}

fn absent(library: &str, error: &NvmlError) -> Absent {
    // The linker has no codes, only this text for a file that is not there.
    let text = match error {
        NvmlError::LibloadingError(error) => std::error::Error::source(error)
            .map_or_else(|| error.to_string(), |source| format!("{error}: {source}")),
        other => other.to_string(),
    };
    if text.contains(library) && text.contains("No such file or directory") {
        Absent::NoLibrary(text)
    } else {
        Absent::Failed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_with_or_without_nvml_gives_an_answer() {
        match gpus(LIBRARY) {
            Ok(gpus) => assert!(gpus.iter().all(|gpu| gpu.uuid.starts_with("GPU-")), "{gpus:?}"),
            Err(Absent::NoLibrary(text)) => assert!(text.contains(LIBRARY), "{text}"),
            Err(Absent::Failed(text)) => assert!(!text.is_empty()),
        }
    }

    #[test]
    fn only_a_library_that_is_not_there_is_normal() {
        let of = |path: &str| absent(path, &Nvml::builder().lib_path(path.as_ref()).init().err().unwrap());
        let missing = of("/nowhere/libnvidia-ml.so.1");
        assert!(matches!(missing, Absent::NoLibrary(_)), "{missing}");
        let directory = tempfile::tempdir().unwrap();
        let garbage = directory.path().join(LIBRARY);
        std::fs::write(&garbage, "no library").unwrap();
        let broken = of(garbage.to_str().unwrap());
        assert!(matches!(broken, Absent::Failed(_)), "{broken}");
        assert!(matches!(absent(LIBRARY, &NvmlError::DriverNotLoaded), Absent::Failed(_)));
    }
}
