//! What goes wrong with GPU memory. No I/O.

use std::{io, time::Duration};

/// An error of NVIDIA's driver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call} gives {name} ({code})")]
pub struct CudaError {
    call: &'static str,
    code: u32,
    name: String,
}

/// No GPU, or it cannot be used.
pub(crate) const STUB_LIBRARY: u32 = 34;
/// The driver is there, and no device for this process.
pub(crate) const NO_DEVICE: u32 = 100;
/// What was asked about is still going on; no failure.
pub(crate) const NOT_READY: u32 = 600;

/// Errors after which every further call in the process fails: memory or a kernel at fault, or broken hardware.
const END_OF_CONTEXT: [u32; 15] = [4, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721];

impl CudaError {
    pub(crate) fn new(call: &'static str, code: u32, name: String) -> Self {
        Self { call, code, name }
    }

    /// The function of the driver.
    pub fn call(&self) -> &'static str {
        self.call
    }

    /// CUDA's number for the error.
    pub fn code(&self) -> u32 {
        self.code
    }

    /// CUDA's name for it, such as `CUDA_ERROR_OUT_OF_MEMORY`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Why something with GPU memory did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// The driver refuses.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// Bytes that are not of the memory.
    #[error("{bytes} bytes from {offset} on are not within memory of {length} bytes")]
    Range {
        /// First byte that was asked for.
        offset: u64,
        /// How many.
        bytes: u64,
        /// Length of the memory.
        length: u64,
    },
    /// A length that memory cannot have.
    #[error(
        "{0} bytes of GPU memory cannot be had: it is at least 1 byte, and its rounded length a number of 64 bits"
    )]
    Length(u64),
    /// It is not as long as was announced.
    #[error(
        "the memory has {found} bytes, and {announced} were announced; announce the length of the whole allocation"
    )]
    Size {
        /// What its holder said.
        announced: u64,
        /// What the driver says.
        found: u64,
    },
    /// It belongs to another GPU.
    #[error("the memory is of GPU {found} here, and was announced for GPU {announced}")]
    Device {
        /// The index in this process of the GPU that it should be of.
        announced: u32,
        /// The index of the one that it is of.
        found: i32,
    },
    /// A write to memory that is mapped for reading.
    #[error("the memory is mapped for reading only")]
    ReadOnly,
    /// Bytes that are no handle.
    #[error("a CUDA IPC handle has 64 bytes, not {0}")]
    Handle(usize),
    /// This GPU cannot do it.
    #[error("this GPU or its driver cannot {0}")]
    NotSupported(&'static str),
    /// The kernel refuses.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
    /// It has not ended in time, and may go on: end the process.
    #[error(
        "{what} has not ended within {patience:?}; the process must end, then what the GPU does to its memory does too"
    )]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long.
        patience: Duration,
    },
    /// Nothing more is begun after a time-out.
    #[error("an earlier copy has not ended in time; the process must end")]
    Over,
}

impl GpuError {
    /// Whether CUDA is of no more use in this process, so that it should end, and another one try again.
    pub fn is_end_of_process(&self) -> bool {
        match self {
            Self::Cuda(error) => END_OF_CONTEXT.contains(&error.code),
            Self::TimedOut { .. } | Self::Over => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_call_and_what_the_driver_says() {
        let error = CudaError::new("cuMemCreate", 2, "CUDA_ERROR_OUT_OF_MEMORY".into());
        assert_eq!(error.to_string(), "cuMemCreate gives CUDA_ERROR_OUT_OF_MEMORY (2)");
        assert_eq!(GpuError::from(error.clone()).to_string(), error.to_string());
    }

    #[test]
    fn the_process_is_over_when_its_context_or_a_copy_is() {
        let of = |code| GpuError::from(CudaError::new("cuEventQuery", code, String::new()));
        for (code, over) in
            [(1, false), (2, false), (201, false), (400, false), (712, false), (700, true), (719, true)]
        {
            assert_eq!(of(code).is_end_of_process(), over, "{code}");
        }
        assert!(GpuError::TimedOut { what: "a copy", patience: Duration::ZERO }.is_end_of_process());
        assert!(GpuError::Over.is_end_of_process());
        assert!(!GpuError::ReadOnly.is_end_of_process());
    }
}
