//! GPU memory that this process can reach, whoever has allocated it. What it costs to give it back is the business of the
//! keeper that each way of getting it has.
#![allow(unsafe_code)] // calls of the driver

use std::{
    any::Any,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use cudarc::driver::sys::CUpointer_attribute_enum as Attribute;

use crate::{calls::call, context::Context, error::GpuError, range};

/// What may be done with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// A range of GPU memory with an address in this process, from `Mapped::import` or [`crate::ipc`]. Unmapped when dropped,
/// which frees the memory if nobody else keeps it.
///
/// Nothing tells whether whoever has allocated it still lives: after its end the bytes are stale, and never another's (facts
/// 18, 19 and 23).
pub struct Mapped {
    context: Arc<Context>,
    pointer: u64,
    bytes: u64,
    access: Access,
    /// Its drop gives the memory back. `None` once that is done.
    keeper: Option<Box<dyn Any + Send + Sync>>,
    /// Whether the GPU may use it until the process ends.
    abandoned: AtomicBool,
}

impl Mapped {
    pub(crate) fn new(
        context: &Arc<Context>,
        pointer: u64,
        bytes: u64,
        access: Access,
        keeper: Box<dyn Any + Send + Sync>,
    ) -> Self {
        let context = Arc::clone(context);
        Self { context, pointer, bytes, access, keeper: Some(keeper), abandoned: AtomicBool::new(false) }
    }

    /// Address of the first byte: a device pointer of this process, which NIXL and CUDA take.
    pub fn device_ptr(&self) -> u64 {
        self.pointer
    }

    /// Length in bytes. A larger range that rounding has made is not part of it.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Never true: memory has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// What may be done with it. Writing to memory that is mapped for reading is refused here, before the GPU sees it.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The context that it is mapped in.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The address of `bytes` from `offset` on.
    ///
    /// # Errors
    /// [`GpuError::Range`].
    pub fn at(&self, offset: u64, bytes: u64) -> Result<u64, GpuError> {
        range::check(offset, bytes, self.bytes)?;
        Ok(self.pointer + offset)
    }

    /// The same, for writing.
    ///
    /// # Errors
    /// [`GpuError::Range`] and [`GpuError::ReadOnly`].
    pub fn at_for_writing(&self, offset: u64, bytes: u64) -> Result<u64, GpuError> {
        match self.access {
            Access::Read => Err(GpuError::ReadOnly),
            Access::ReadWrite => self.at(offset, bytes),
        }
    }

    /// It is not given back any more: the GPU may be using it until the process ends.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if self.abandoned.load(Ordering::Relaxed) {
            std::mem::forget(self.keeper.take());
        }
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapped")
            .field("gpu", &self.context.device().uuid())
            .field("bytes", &self.bytes)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// Checks that an address is of the context's GPU; touches no byte.
///
/// # Errors
/// [`GpuError::Device`], and what the driver says about an address that is none.
pub(crate) fn check_device(context: &Context, pointer: u64) -> Result<(), GpuError> {
    let _current = context.enter()?;
    let mut found = -1_i32;
    let (to, attribute) = ((&raw mut found).cast(), Attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
    // SAFETY: writes one number of 32 bits for this attribute; an address that is none is an error.
    unsafe { call!(context.driver(), cuPointerGetAttribute(to, attribute, pointer)) }?;
    let announced = context.device().index();
    if i64::from(found) == i64::from(announced) { Ok(()) } else { Err(GpuError::Device { announced, found }) }
}
