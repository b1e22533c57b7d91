//! NVIDIA's driver in this process, and the GPUs that it shows. A machine without them is a normal case: [`Absent`].
#![allow(unsafe_code)] // calls of the driver

use std::{
    ffi::{CStr, c_int},
    fmt,
    mem::MaybeUninit,
};

use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute};

use crate::{
    calls::{Calls, LIBRARY, call},
    error::{CudaError, NO_DEVICE, STUB_LIBRARY},
    ids::{PciAddress, Uuid},
};

/// Why there is no GPU for this process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    /// The driver's library is not there: the normal case without GPUs.
    #[error(
        "no NVIDIA GPU: libcuda.so.1 cannot be loaded ({0}); it comes with NVIDIA's driver, and into a container with \
         NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    )]
    NoLibrary(String),
    /// It is there, and a call that is needed is not.
    #[error("no usable NVIDIA GPU: libcuda.so.1 has no {0}; install a driver of CUDA 12 or newer")]
    TooOld(&'static str),
    /// It works, and shows no device.
    #[error(
        "no NVIDIA GPU: the driver shows none to this process; look at `nvidia-smi -L`, at /dev/nvidia* in the container and \
         at CUDA_VISIBLE_DEVICES"
    )]
    NoDevice,
    /// It fails.
    #[error("no usable NVIDIA GPU: {0}; look at `nvidia-smi` and the driver's messages in the kernel log")]
    Failed(CudaError),
}

impl From<CudaError> for Absent {
    fn from(error: CudaError) -> Self {
        match error.code() {
            NO_DEVICE => Self::NoDevice,
            STUB_LIBRARY => Self::NoLibrary("it is the stub of a development package".to_owned()),
            _ => Self::Failed(error),
        }
    }
}

/// Proof that NVIDIA's driver is loaded in this process and works. It stays loaded until the process ends.
#[derive(Clone, Copy)]
pub struct Driver {
    calls: &'static Calls,
}

impl Driver {
    /// [`Self::load_from`] the name that every driver has, [`LIBRARY`].
    ///
    /// # Errors
    /// [`Absent`].
    pub fn load() -> Result<Self, Absent> {
        Self::load_from(LIBRARY)
    }

    /// Loads the driver, a library by its name or path, and looks for a device. A process has one driver: the first that was
    /// loaded. Takes about 0.1 s and 29 MiB of host memory, and none of a GPU (facts 10 and
    /// 25). Blocks, without end beside a sick driver. From here on the process must not fork and go on in the child.
    ///
    /// # Errors
    /// [`Absent`], which says what to do. Never panics or aborts.
    pub fn load_from(library: &str) -> Result<Self, Absent> {
        let driver = Self { calls: Calls::of_process(library)? };
        // SAFETY: 0 is the only value for its flags; it may be called again.
        unsafe { call!(driver, cuInit(0)) }?;
        if driver.count()? == 0 { Err(Absent::NoDevice) } else { Ok(driver) }
    }

    fn count(self) -> Result<c_int, CudaError> {
        let mut count = 0;
        // SAFETY: writes one number.
        unsafe { call!(self, cuDeviceGetCount(&raw mut count)) }?;
        Ok(count)
    }

    /// The GPUs that this process is shown, by index. There is at least one.
    ///
    /// # Errors
    /// What the driver says.
    pub fn devices(self) -> Result<Vec<Device>, CudaError> {
        (0..self.count()?).map(|index| Device::read(self, index)).collect()
    }

    /// The GPU with this UUID, if this process is shown it.
    ///
    /// # Errors
    /// What the driver says.
    pub fn device(self, uuid: Uuid) -> Result<Option<Device>, CudaError> {
        Ok(self.devices()?.into_iter().find(|device| device.uuid == uuid))
    }

    /// The GPU at this address, if this process is shown it.
    ///
    /// # Errors
    /// What the driver says.
    pub fn device_at(self, address: PciAddress) -> Result<Option<Device>, CudaError> {
        Ok(self.devices()?.into_iter().find(|device| device.address == Some(address)))
    }

    /// One of these calls.
    #[cfg(test)]
    pub(crate) fn of(calls: &'static Calls) -> Self {
        Self { calls }
    }

    pub(crate) fn calls(self) -> &'static Calls {
        self.calls
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Driver")
    }
}

/// A GPU, or a MIG part of one, as this process sees it.
#[derive(Clone, Debug)]
pub struct Device {
    driver: Driver,
    raw: sys::CUdevice,
    index: u32,
    uuid: Uuid,
    address: Option<PciAddress>,
    model: String,
    bytes: u64,
}

impl Device {
    fn read(driver: Driver, index: c_int) -> Result<Self, CudaError> {
        let mut raw = 0;
        // SAFETY: writes one number, for an index that is checked by the driver.
        unsafe { call!(driver, cuDeviceGet(&raw mut raw, index)) }?;
        let mut uuid = MaybeUninit::<sys::CUuuid>::zeroed();
        // SAFETY: writes the 16 bytes of a UUID.
        unsafe { call!(driver, cuDeviceGetUuid_v2(uuid.as_mut_ptr(), raw)) }?;
        // SAFETY: zeroed bytes are a value of it too.
        let uuid = Uuid::from_bytes(unsafe { uuid.assume_init() }.bytes.map(|byte| byte as u8));
        let mut bytes = 0;
        // SAFETY: writes one number.
        unsafe { call!(driver, cuDeviceTotalMem_v2(&raw mut bytes, raw)) }?;
        let address = text(|buffer, length| {
            // SAFETY: writes at most `length` bytes, with NUL, to the buffer that has as many.
            unsafe { call!(driver, cuDeviceGetPCIBusId(buffer, length, raw)) }
        });
        let model = text(|buffer, length| {
            // SAFETY: as above.
            unsafe { call!(driver, cuDeviceGetName(buffer, length, raw)) }
        });
        Ok(Self {
            driver,
            raw,
            index: u32::try_from(index).unwrap_or(0),
            uuid,
            address: address.ok().and_then(|address| address.parse().ok()),
            model: model.unwrap_or_default(),
            bytes: bytes as u64,
        })
    }

    /// CUDA's index in this process: not NVML's, and not that of another process.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its UUID, the same in every process.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Its PCI address, if the driver says one.
    pub fn address(&self) -> Option<PciAddress> {
        self.address
    }

    /// The model; empty if the driver does not say.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// All its memory, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn driver(&self) -> Driver {
        self.driver
    }

    pub(crate) fn raw(&self) -> sys::CUdevice {
        self.raw
    }

    /// Whether it has this ability.
    pub(crate) fn has(&self, attribute: Attribute) -> Result<bool, CudaError> {
        let mut value = 0;
        // SAFETY: writes one number; the attribute is one of NVIDIA's header.
        unsafe { call!(self.driver, cuDeviceGetAttribute(&raw mut value, attribute, self.raw)) }?;
        Ok(value != 0)
    }
}

/// The text that a call writes into a buffer that it is given with its length.
fn text(
    write: impl FnOnce(*mut std::ffi::c_char, c_int) -> Result<(), CudaError>,
) -> Result<String, CudaError> {
    let mut buffer = [0_u8; 128];
    write(buffer.as_mut_ptr().cast(), 127)?;
    // The last byte is never written.
    Ok(CStr::from_bytes_until_nul(&buffer).unwrap_or_default().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a machine without GPUs this shows that nothing panics; on one with them, that they have names.
    #[test]
    fn a_machine_with_or_without_a_gpu_gives_an_answer() {
        match Driver::load() {
            Ok(driver) => {
                let devices = driver.devices().unwrap();
                assert!(devices.iter().all(|device| device.bytes() > 0), "{devices:?}");
                let first = &devices[0];
                assert_eq!(driver.device(first.uuid()).unwrap().unwrap().index(), first.index());
            }
            Err(absent) => {
                let text = absent.to_string();
                assert!(
                    text.starts_with("no NVIDIA GPU") || text.starts_with("no usable NVIDIA GPU"),
                    "{text}"
                );
                assert!(text.contains("; "), "no remedy: {text}");
            }
        }
    }

    #[test]
    fn what_is_no_driver_is_told_apart() {
        let of = |path: &str| Calls::open(path).err().unwrap();
        let missing = of("/nowhere/libcuda.so.1");
        assert!(matches!(&missing, Absent::NoLibrary(why) if why.contains("No such file")), "{missing}");
        assert!(missing.to_string().contains("NVIDIA_DRIVER_CAPABILITIES"), "{missing}");
        // A library that is none of NVIDIA's.
        assert_eq!(of("libc.so.6"), Absent::TooOld("cuInit"));
    }

    #[test]
    fn errors_of_the_first_call_say_what_is_missing() {
        let of = |code| Absent::from(CudaError::new("cuInit", code, "NAME".into()));
        assert_eq!(of(100), Absent::NoDevice);
        assert!(matches!(of(34), Absent::NoLibrary(_)));
        assert_eq!(
            of(803).to_string().split(';').next(),
            Some("no usable NVIDIA GPU: cuInit gives NAME (803)")
        );
    }
}
