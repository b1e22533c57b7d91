//! CUDA IPC of the older kind, for memory of others that was made with `cudaMalloc`, such as PyTorch's. Memory from
//! [`crate::Allocation`] does not have its faults:
//! - A handle is 64 bytes that anyone who knows them can use, and the driver checks few of them. It is input of an untrusted
//!   party: open it in a process that may die, never in control. One with a wrong size opens, and the first access kills the
//!   context (fact 22); so sizes are compared here before any. A holder that lies in the handle and in words alike still
//!   kills the process that opens it, and nothing else.
//! - Two processes with the same pid number, each in its own pid namespace, cannot share (fact 21): two pods whose CUDA
//!   process is pid 1. Opening gives error 201 then, as it does for one's own memory.
//! - Nothing tells of the holder's end. The memory stays until the last importer has closed it (fact 18).
//! - Memory that came this way cannot be handed on (fact 17), and NIXL's GPU-to-GPU path within a node is slow with it
//!   (fact 24).
#![allow(unsafe_code)] // calls of the driver

use std::{fmt, mem::MaybeUninit, sync::Arc};

use cudarc::driver::sys;

use crate::{
    calls::call,
    context::Context,
    error::GpuError,
    mapped::{Access, Mapped, check_device},
    range,
};

/// A handle, as `cudaIpcGetMemHandle` gives it: a capability for a whole allocation. Not shown by `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Handle([u8; Handle::BYTES]);

impl Handle {
    /// Its length.
    pub const BYTES: usize = 64;

    /// From its bytes. There is no telling whether it is a good one.
    ///
    /// # Errors
    /// [`GpuError::Handle`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, GpuError> {
        bytes.try_into().map(Self).map_err(|_| GpuError::Handle(bytes.len()))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle(…)")
    }
}

/// What a holder says of memory that it shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The handle of the allocation.
    pub handle: Handle,
    /// Length of the whole allocation in bytes: PyTorch cuts its tensors out of larger ones.
    pub allocation: u64,
    /// Where the shared part begins in it, in bytes.
    pub offset: u64,
    /// Length of the shared part in bytes, at least 1.
    pub bytes: u64,
}

impl Announced {
    /// Checks the numbers by themselves; needs no GPU.
    ///
    /// # Errors
    /// [`GpuError::Length`] and [`GpuError::Range`].
    pub fn check(&self) -> Result<(), GpuError> {
        if self.bytes == 0 {
            return Err(GpuError::Length(0));
        }
        range::check(self.offset, self.bytes, self.allocation)
    }
}

/// Opens memory of another process on the same node; 0.1 ms. Nothing of it is accessed before the driver has said that it is
/// as long as was announced, and of this GPU.
///
/// # Errors
/// [`GpuError::Size`], [`GpuError::Device`], those of [`Announced::check`]; `CUDA_ERROR_INVALID_HANDLE` (400) when its holder
/// has ended, `CUDA_ERROR_INVALID_CONTEXT` (201) when it has the same pid number.
pub fn open(context: &Arc<Context>, announced: &Announced, access: Access) -> Result<Mapped, GpuError> {
    announced.check()?;
    let _current = context.enter()?;
    let mut base = 0;
    let handle = sys::CUipcMemHandle { reserved: announced.handle.0.map(|byte| byte as std::ffi::c_char) };
    let flags = sys::CUipcMem_flags_enum::CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS as u32;
    // SAFETY: writes one address; the driver takes any 64 bytes, and only addresses are made.
    unsafe { call!(context.driver(), cuIpcOpenMemHandle_v2(&raw mut base, handle, flags)) }?;
    let opened = Open { context: Arc::clone(context), base };
    let (start, found) = address_range(context, base)?;
    if start != base || found != announced.allocation {
        return Err(GpuError::Size { announced: announced.allocation, found });
    }
    check_device(context, base)?;
    Ok(Mapped::new(context, base + announced.offset, announced.bytes, access, Box::new(opened)))
}

/// The start and the length of the allocation that an address lies in.
fn address_range(context: &Context, pointer: u64) -> Result<(u64, u64), GpuError> {
    let (mut start, mut length) = (0, 0);
    let _current = context.enter()?;
    // SAFETY: writes an address and a number; an address that is none is an error.
    unsafe { call!(context.driver(), cuMemGetAddressRange_v2(&raw mut start, &raw mut length, pointer)) }?;
    Ok((start, length as u64))
}

/// An open handle. Opening one twice counts (fact 16), and so does closing.
struct Open {
    context: Arc<Context>,
    base: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        let _current = self.context.enter();
        // SAFETY: opened once, closed once; nothing is in flight, or the owner would have been abandoned.
        if let Err(error) = unsafe { call!(self.context.driver(), cuIpcCloseMemHandle(self.base)) } {
            tracing::warn!(%error, "a CUDA IPC handle could not be closed");
        }
    }
}

/// Memory made as `cudaMalloc` makes it, and what its holder announces: the part of a workload, for tests and examples.
#[derive(Debug)]
pub struct Shared {
    memory: Arc<Mapped>,
    handle: Handle,
}

impl Shared {
    /// Allocates memory and takes its handle. It is not zeroed.
    ///
    /// # Errors
    /// What the driver says.
    pub fn allocate(context: &Arc<Context>, bytes: u64) -> Result<Self, GpuError> {
        let size = range::round_up(bytes, 1)?;
        let _current = context.enter()?;
        let mut base = 0;
        // SAFETY: writes one address.
        unsafe { call!(context.driver(), cuMemAlloc_v2(&raw mut base, size)) }?;
        let own = Own { context: Arc::clone(context), base };
        let mut handle = MaybeUninit::<sys::CUipcMemHandle>::zeroed();
        // SAFETY: writes the 64 bytes of a handle.
        unsafe { call!(context.driver(), cuIpcGetMemHandle(handle.as_mut_ptr(), base)) }?;
        // SAFETY: zeroed bytes are a value of it too.
        let handle = Handle(unsafe { handle.assume_init() }.reserved.map(|byte| byte as u8));
        let memory = Mapped::new(context, base, bytes, Access::ReadWrite, Box::new(own));
        Ok(Self { memory: Arc::new(memory), handle })
    }

    /// The memory.
    pub fn memory(&self) -> &Arc<Mapped> {
        &self.memory
    }

    /// What to tell an importer about `bytes` from `offset` on.
    ///
    /// # Errors
    /// [`GpuError::Range`] and [`GpuError::Length`].
    pub fn announce(&self, offset: u64, bytes: u64) -> Result<Announced, GpuError> {
        let announced = Announced { handle: self.handle, allocation: self.memory.len(), offset, bytes };
        announced.check()?;
        Ok(announced)
    }
}

/// Memory of `cuMemAlloc`.
struct Own {
    context: Arc<Context>,
    base: u64,
}

impl Drop for Own {
    fn drop(&mut self) {
        let _current = self.context.enter();
        // SAFETY: allocated once, freed once; nothing of ours is in flight, or the owner would have been abandoned.
        if let Err(error) = unsafe { call!(self.context.driver(), cuMemFree_v2(self.base)) } {
            tracing::warn!(%error, "GPU memory could not be freed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc, time::Duration};

    use super::*;
    use crate::{Copier, fake};

    #[test]
    fn a_handle_has_64_bytes_and_is_not_shown() {
        let handle = Handle::from_bytes(&[0xab; 64]).unwrap();
        assert_eq!(handle.as_bytes(), &[0xab; 64]);
        assert_eq!(format!("{handle:?}"), "Handle(…)");
        for length in [0, 63, 65] {
            assert!(
                matches!(Handle::from_bytes(&vec![0; length]), Err(GpuError::Handle(found)) if found == length)
            );
        }
    }

    #[test]
    fn numbers_that_contradict_each_other_are_refused_without_a_gpu() {
        let of = |allocation, offset, bytes| {
            Announced { handle: Handle([0; 64]), allocation, offset, bytes }.check()
        };
        assert!(of(4096, 0, 4096).is_ok());
        assert!(of(4096, 4095, 1).is_ok());
        for (allocation, offset, bytes) in
            [(4096, 0, 0), (0, 0, 1), (4096, 1, 4096), (4096, 4096, 1), (4096, u64::MAX, 2)]
        {
            assert!(of(allocation, offset, bytes).is_err(), "{allocation} {offset} {bytes}");
        }
    }

    fn of_another(length: usize) -> (Arc<Context>, Announced) {
        let context = fake::context();
        let memory: Vec<u8> = (0..length).map(|at| at as u8).collect();
        fake::with(|state| state.shared.insert(3, Rc::new(RefCell::new(memory))));
        let handle = Handle([3; 64]);
        (context, Announced { handle, allocation: length as u64, offset: 0, bytes: length as u64 })
    }

    #[test]
    fn a_part_of_another_process_memory_is_reached_and_closed() {
        let (context, announced) = of_another(4096);
        let part = Announced { offset: 17, bytes: 3, ..announced };
        let memory = Arc::new(open(&context, &part, Access::Read).unwrap());
        let mut bytes = [0; 3];
        Copier::new(Arc::clone(&memory), Duration::from_secs(9)).unwrap().read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [17, 18, 19]);
        drop((memory, context));
        assert_eq!(fake::leaks(), [""; 0]);
    }

    #[test]
    fn a_wrong_length_is_found_before_any_access_and_the_handle_closed() {
        let (context, announced) = of_another(4096);
        for allocation in [4097, 8192, 1 << 40] {
            let lie = Announced { allocation, ..announced };
            let found = open(&context, &lie, Access::ReadWrite);
            assert!(
                matches!(found, Err(GpuError::Size { announced, found: 4096 }) if announced == allocation)
            );
        }
        let unknown = Announced { handle: Handle([4; 64]), ..announced };
        assert!(matches!(open(&context, &unknown, Access::Read), Err(GpuError::Cuda(_))));
        assert_eq!(fake::leaks(), ["1 contexts"]);
        assert_eq!(fake::with(|state| state.most_in_flight), 0);
    }
}
