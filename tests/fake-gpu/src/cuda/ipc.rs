//! Memory of the older kind, `cuMemAlloc`, and its handles of 64 bytes: whoever knows one opens the memfd of the holder
//! through /proc, as long as the holder lives and has it.

use std::{
    ffi::{c_char, c_int, c_uint},
    os::fd::AsRawFd,
    process,
    sync::Arc,
};

use cudarc::driver::sys;
use rustix::fs::{Mode, OFlags, fstat, open};

use super::{
    INVALID_CONTEXT, INVALID_HANDLE, INVALID_VALUE, State, answer,
    mappings::Kind,
    memory::{Memory, address},
};

/// What a handle says. The process stands where NVIDIA's has it (fact 21).
struct Handle {
    process: u32,
    descriptor: c_int,
    size: u64,
    inode: u64,
}

const MAGIC: [u8; 8] = *b"FAKE-GPU";

impl Handle {
    fn bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.process.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.descriptor.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.size.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.inode.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8; 64]) -> Option<Self> {
        fn part<const N: usize>(bytes: &[u8; 64], at: usize) -> Option<[u8; N]> {
            bytes[at..].first_chunk().copied()
        }
        (part(bytes, 0)? == MAGIC).then_some(())?;
        Some(Self {
            process: u32::from_le_bytes(part(bytes, 8)?),
            descriptor: c_int::from_le_bytes(part(bytes, 12)?),
            size: u64::from_le_bytes(part(bytes, 16)?),
            inode: u64::from_le_bytes(part(bytes, 24)?),
        })
    }

    /// The holder's memory. The size is not looked at, as the driver does not (fact 22): what is mapped is what there is.
    fn open(&self, state: &State) -> Option<Arc<Memory>> {
        let link = format!("/proc/{}/fd/{}", self.process, self.descriptor);
        // Looked at before, because opening something else may do something.
        address(&link)?;
        let own = open(&link, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).ok()?;
        (fstat(&own).ok()?.st_ino == self.inode).then_some(())?;
        Memory::of(state, own)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(start: *mut sys::CUdeviceptr, size: usize) -> c_uint {
    answer(|state| {
        let (device, gpu) = state.current_gpu()?;
        let memory = Memory::create(device, gpu, size)?;
        // SAFETY: the caller's number.
        unsafe { *start = state.map(memory, Kind::Own)? };
        Ok(())
    })
}

/// Importers keep the memory (fact 19).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFree_v2(start: sys::CUdeviceptr) -> c_uint {
    answer(|state| {
        state.current()?;
        state.unmap(start, |kind| kind == Kind::Own)
    })
}

/// Only of one's own memory of this kind (facts 17 and 23), with any address in it (fact 16).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuIpcGetMemHandle(
    handle: *mut sys::CUipcMemHandle,
    address: sys::CUdeviceptr,
) -> c_uint {
    answer(|state| {
        state.current()?;
        let (_, mapping) = state.find(address)?;
        if mapping.kind != Kind::Own {
            return Err(INVALID_VALUE);
        }
        let memory = &mapping.memory;
        let descriptor = memory.descriptor.as_raw_fd();
        let process = process::id();
        let made = Handle { process, descriptor, size: memory.size as u64, inode: memory.inode };
        // SAFETY: the caller's structure.
        unsafe { (*handle).reserved = made.bytes().map(|byte| byte as c_char) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuIpcOpenMemHandle_v2(
    start: *mut sys::CUdeviceptr,
    handle: sys::CUipcMemHandle,
    flags: c_uint,
) -> c_uint {
    answer(|state| {
        state.current()?;
        if flags != sys::CUipcMem_flags_enum::CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS as c_uint {
            return Err(INVALID_VALUE);
        }
        let handle = Handle::read(&handle.reserved.map(|byte| byte as u8)).ok_or(INVALID_HANDLE)?;
        if handle.process == process::id() {
            return Err(INVALID_CONTEXT);
        }
        let memory = handle.open(state).ok_or(INVALID_HANDLE)?;
        let again = state.mapped.iter_mut().find_map(|(start, mapping)| match &mut mapping.kind {
            Kind::Opened(times) if mapping.memory.inode == memory.inode => {
                *times += 1;
                Some(*start)
            }
            _ => None,
        });
        let opened = match again {
            Some(opened) => opened,
            None => state.map(memory, Kind::Opened(1))?,
        };
        // SAFETY: the caller's number.
        unsafe { *start = opened };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuIpcCloseMemHandle(start: sys::CUdeviceptr) -> c_uint {
    answer(|state| {
        state.current()?;
        match state.mapped.get_mut(&start).map(|mapping| &mut mapping.kind) {
            Some(Kind::Opened(times)) if *times > 1 => {
                *times -= 1;
                Ok(())
            }
            _ => state.unmap(start, |kind| matches!(kind, Kind::Opened(_))),
        }
    })
}
