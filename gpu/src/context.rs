//! The primary context of a GPU in this process, which everything that touches bytes needs. It is the one that CUDA's runtime,
//! NIXL and UCX use too.
#![allow(unsafe_code)] // calls of the driver

use std::{marker::PhantomData, ptr, sync::Arc};

use cudarc::driver::sys;

use crate::{
    calls::call,
    driver::{Device, Driver},
    error::GpuError,
};

/// A held primary context. Given back when the last owner is gone; memory, slots and copiers are owners.
#[derive(Debug)]
pub struct Context {
    device: Device,
    raw: sys::CUcontext,
}

// SAFETY: CUDA allows a context to be used by any threads, at once too; the pointer is only passed to the driver.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Holds the context, and makes it if this process has none of this GPU yet: about 0.1 s, 518 MiB of the GPU and 100 MiB
    /// of host memory (fact 25).
    ///
    /// # Errors
    /// What the driver says, such as `CUDA_ERROR_OUT_OF_MEMORY`.
    pub fn retain(device: &Device) -> Result<Arc<Self>, GpuError> {
        let mut raw = ptr::null_mut();
        // SAFETY: writes one pointer; the device is one that the driver gave.
        unsafe { call!(device.driver(), cuDevicePrimaryCtxRetain(&raw mut raw, device.raw())) }?;
        Ok(Arc::new(Self { device: device.clone(), raw }))
    }

    /// Its GPU.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Makes it this thread's current one, until what is returned is dropped. All that is here does so by itself where it
    /// is needed. NIXL needs none (fact 15); with a current one it pins host memory that it registers, if that is not pinned
    /// yet (fact 11).
    ///
    /// # Errors
    /// What the driver says.
    pub fn enter(&self) -> Result<Current<'_>, GpuError> {
        // SAFETY: the context is held.
        unsafe { call!(self.driver(), cuCtxPushCurrent_v2(self.raw)) }?;
        Ok(Current { context: self, _of_this_thread: PhantomData })
    }

    /// The GPU's free memory and all of it, in bytes, whoever has taken the rest.
    ///
    /// # Errors
    /// What the driver says.
    pub fn free_and_total(&self) -> Result<(u64, u64), GpuError> {
        let _current = self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two numbers.
        unsafe { call!(self.driver(), cuMemGetInfo_v2(&raw mut free, &raw mut total)) }?;
        Ok((free as u64, total as u64))
    }

    pub(crate) fn driver(&self) -> Driver {
        self.device.driver()
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once by `retain`; all that was made in it holds the context, so it is gone.
        if let Err(error) = unsafe { call!(self.driver(), cuDevicePrimaryCtxRelease_v2(self.device.raw())) } {
            tracing::warn!(%error, "a CUDA context could not be given back");
        }
    }
}

/// The context is current in this thread as long as this lives. Of several, the last one made is to be dropped first.
#[derive(Debug)]
pub struct Current<'a> {
    context: &'a Context,
    /// Not to be dropped in another thread.
    _of_this_thread: PhantomData<*const ()>,
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        let mut popped = ptr::null_mut();
        // SAFETY: writes one pointer; what `enter` pushed in this thread is taken off again.
        if let Err(error) = unsafe { call!(self.context.driver(), cuCtxPopCurrent_v2(&raw mut popped)) } {
            tracing::warn!(%error, "a CUDA context is still current in this thread");
        }
    }
}
