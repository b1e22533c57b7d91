//! Where a piece of memory lives, in the wire form of `nixl_connect`: read leniently in case and space, written
//! strictly. The index is the sender's own and is never interpreted here. No I/O.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::metadata::MemoryKind;

/// A memory's device. In text `cpu`, `cuda:N` or `xpu:N`; read with any case, with space around it, and with index 0 when it
/// is left out. The index is the one of the process that owns the memory: it is passed on and never interpreted.
///
/// `host` and `gpu`, which Python's `Device` takes too, are refused: they are not allowed on the wire.
///
/// ```
/// use nixl_connect::Device;
///
/// assert_eq!("CUDA:3".parse(), Ok(Device::Cuda(3)));
/// assert_eq!("cuda".parse::<Device>()?.to_string(), "cuda:0");
/// assert!("gpu:0".parse::<Device>().is_err());
/// # Ok::<(), nixl_connect::DeviceError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Device {
    /// Host memory, `cpu`.
    Cpu,
    /// Memory of the CUDA device with this index in the process that owns it, `cuda:N`.
    Cuda(u32),
    /// Memory of the Intel GPU with this index in the process that owns it, `xpu:N`.
    Xpu(u32),
}

/// A device string that is not one of `cpu`, `cuda`, `cuda:N`, `xpu`, `xpu:N`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("device {shown:?} is none of cpu, cuda:N, xpu:N")]
pub struct DeviceError {
    shown: String,
}

/// Longest part of a refused device that is repeated in the error.
const SHOWN_CHARACTERS: usize = 32;

impl Device {
    /// The device's index in the process that owns the memory; 0 for host memory, as NIXL writes it.
    pub fn index(self) -> u64 {
        match self {
            Self::Cpu => 0,
            Self::Cuda(index) | Self::Xpu(index) => u64::from(index),
        }
    }

    /// NIXL's kind of memory for this device: host memory is `Dram`, that of any GPU `Vram`.
    pub fn memory_kind(self) -> MemoryKind {
        match self {
            Self::Cpu => MemoryKind::Dram,
            Self::Cuda(_) | Self::Xpu(_) => MemoryKind::Vram,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(index) => write!(formatter, "cuda:{index}"),
            Self::Xpu(index) => write!(formatter, "xpu:{index}"),
        }
    }
}

impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let refused = || DeviceError { shown: text.chars().take(SHOWN_CHARACTERS).collect() };
        let trimmed = text.trim();
        let (kind, index) = match trimmed.split_once(':') {
            Some((kind, index)) => (kind, Some(index)),
            None => (trimmed, None),
        };
        let index = match index {
            None => None,
            // `u32::from_str` takes a leading `+`, which nobody writes.
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse::<u32>().map_err(|_| refused())?)
            }
            Some(_) => return Err(refused()),
        };
        match (kind.to_ascii_lowercase().as_str(), index) {
            ("cpu", None) => Ok(Self::Cpu),
            ("cuda", index) => Ok(Self::Cuda(index.unwrap_or(0))),
            ("xpu", index) => Ok(Self::Xpu(index.unwrap_or(0))),
            _ => Err(refused()),
        }
    }
}

impl Serialize for Device {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_leniently_and_writes_strictly() {
        for (text, written) in [
            ("cpu", "cpu"),
            (" CPU\n", "cpu"),
            ("CUDA:3", "cuda:3"),
            ("cuda", "cuda:0"),
            ("xpu:007", "xpu:7"),
        ] {
            let device: Device = text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"));
            assert_eq!(device.to_string(), written);
        }
    }

    #[test]
    fn refuses_what_nixl_connect_refuses_on_the_wire() {
        for text in
            ["", "cpu:0", "gpu:0", "host", "cuda:", "cuda:+1", "cuda:-1", "cuda:4294967296", "cuda:1:2"]
        {
            assert!(text.parse::<Device>().is_err(), "{text:?} was taken");
        }
    }
}
