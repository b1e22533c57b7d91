//! Work of a GPU in its order, and marks in it that are waited for with a deadline: by asking, since CUDA's own waits have
//! none.
#![allow(unsafe_code)] // calls of the driver

use std::{
    ffi::c_void,
    ptr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use cudarc::driver::sys;

use crate::{
    calls::call,
    context::Context,
    error::{GpuError, NOT_READY},
};

/// So long is asked without sleeping: a copy of 1 MiB takes 31 µs (fact 28).
const SPIN: Duration = Duration::from_micros(200);
/// Longest sleep between two questions.
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// Work that is done in the order in which it was begun.
#[derive(Debug)]
pub(crate) struct Stream {
    context: Arc<Context>,
    raw: sys::CUstream,
}

// SAFETY: CUDA allows a stream to be used by any thread; the pointer is only passed to the driver.
unsafe impl Send for Stream {}
// SAFETY: as above, at once too.
unsafe impl Sync for Stream {}

impl Stream {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self, GpuError> {
        let _current = context.enter()?;
        let mut raw = ptr::null_mut();
        let flags = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: writes one pointer; a context is current.
        unsafe { call!(context.driver(), cuStreamCreate(&raw mut raw, flags)) }?;
        Ok(Self { context: Arc::clone(context), raw })
    }

    /// Begins a copy from the host to the GPU.
    ///
    /// # Safety
    /// The host's bytes stay readable and unchanged, and the GPU's mapped, until an event that is recorded later is over.
    pub(crate) unsafe fn to_device(&self, to: u64, from: *const u8, bytes: usize) -> Result<(), GpuError> {
        let _current = self.context.enter()?;
        // SAFETY: as this function demands.
        Ok(unsafe {
            call!(self.context.driver(), cuMemcpyHtoDAsync_v2(to, from.cast::<c_void>(), bytes, self.raw))
        }?)
    }

    /// Begins a copy from the GPU to the host.
    ///
    /// # Safety
    /// The host's bytes stay writable and nobody looks at them, and the GPU's stay mapped, until an event that is recorded
    /// later is over.
    pub(crate) unsafe fn to_host(&self, to: *mut u8, from: u64, bytes: usize) -> Result<(), GpuError> {
        let _current = self.context.enter()?;
        // SAFETY: as this function demands.
        Ok(unsafe {
            call!(self.context.driver(), cuMemcpyDtoHAsync_v2(to.cast::<c_void>(), from, bytes, self.raw))
        }?)
    }

    /// Begins to fill the GPU's memory with zeros.
    ///
    /// # Safety
    /// It stays mapped until an event that is recorded later is over.
    pub(crate) unsafe fn zero(&self, start: u64, bytes: usize) -> Result<(), GpuError> {
        let _current = self.context.enter()?;
        // SAFETY: as this function demands.
        Ok(unsafe { call!(self.context.driver(), cuMemsetD8Async(start, 0, bytes, self.raw)) }?)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _current = self.context.enter();
        // SAFETY: made by `new`, destroyed once; the driver lets what is still going on in it end by itself.
        if let Err(error) = unsafe { call!(self.context.driver(), cuStreamDestroy_v2(self.raw)) } {
            tracing::warn!(%error, "a CUDA stream could not be destroyed");
        }
    }
}

/// A mark in a stream.
#[derive(Debug)]
pub(crate) struct Event {
    context: Arc<Context>,
    raw: sys::CUevent,
}

// SAFETY: CUDA allows an event to be used by any thread; the pointer is only passed to the driver.
unsafe impl Send for Event {}
// SAFETY: as above, at once too.
unsafe impl Sync for Event {}

impl Event {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self, GpuError> {
        let _current = context.enter()?;
        let mut raw = ptr::null_mut();
        let flags = sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: writes one pointer; a context is current.
        unsafe { call!(context.driver(), cuEventCreate(&raw mut raw, flags)) }?;
        Ok(Self { context: Arc::clone(context), raw })
    }

    /// Marks the end of what was begun in the stream until now.
    pub(crate) fn record(&self, stream: &Stream) -> Result<(), GpuError> {
        let _current = self.context.enter()?;
        // SAFETY: both are of this context and live.
        Ok(unsafe { call!(self.context.driver(), cuEventRecord(self.raw, stream.raw)) }?)
    }

    /// Waits until the mark is reached.
    ///
    /// # Errors
    /// What the driver says, also about what came before the mark; [`GpuError::TimedOut`] with `what`.
    pub(crate) fn wait(&self, what: &'static str, patience: Duration) -> Result<(), GpuError> {
        let _current = self.context.enter()?;
        poll(what, patience, || {
            // SAFETY: only asks.
            match unsafe { call!(self.context.driver(), cuEventQuery(self.raw)) } {
                Ok(()) => Ok(true),
                Err(error) if error.code() == NOT_READY => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let _current = self.context.enter();
        // SAFETY: made by `new`, destroyed once; one that is not reached yet ends by itself.
        if let Err(error) = unsafe { call!(self.context.driver(), cuEventDestroy_v2(self.raw)) } {
            tracing::warn!(%error, "a CUDA event could not be destroyed");
        }
    }
}

/// Asks until the answer is yes: without pause at first, then ever more slowly. Asks at least once.
fn poll(
    what: &'static str,
    patience: Duration,
    mut is_over: impl FnMut() -> Result<bool, GpuError>,
) -> Result<(), GpuError> {
    let begun = Instant::now();
    let mut pause = Duration::from_micros(20);
    loop {
        if is_over()? {
            return Ok(());
        }
        let waited = begun.elapsed();
        if waited >= patience {
            return Err(GpuError::TimedOut { what, patience });
        }
        if waited < SPIN {
            std::hint::spin_loop();
        } else {
            thread::sleep(pause.min(patience - waited));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::CudaError;

    #[test]
    fn a_wait_ends_with_what_comes_first() {
        let patience = Duration::from_secs(60);
        let mut left = 300;
        let soon = || {
            left -= 1;
            Ok(left == 0)
        };
        assert!(poll("it", patience, soon).is_ok());
        let failed = || Err(CudaError::new("cuEventQuery", 719, "CUDA_ERROR_LAUNCH_FAILED".into()).into());
        assert!(matches!(poll("it", patience, failed), Err(GpuError::Cuda(_))));
        let patience = Duration::from_millis(5);
        let error = poll("a copy", patience, || Ok(false)).unwrap_err();
        assert!(error.to_string().starts_with("a copy has not ended within 5ms"), "{error}");
        assert!(poll("it", Duration::ZERO, || Ok(true)).is_ok(), "asked at least once");
    }
}
