//! Addresses of this process that memory is mapped at, and the calls that map it. An address is a real one of this process,
//! but only what is noted here is touched.

use std::{
    ffi::{c_int, c_uint, c_ulonglong, c_void},
    ptr,
    sync::Arc,
};

use cudarc::driver::sys::{self, CUpointer_attribute_enum as Attribute};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};

use super::{ILLEGAL_ADDRESS, INVALID_VALUE, State, answer, code, memory::Memory};

/// What the GPU may do there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    None,
    Read,
    ReadWrite,
}

/// Which call gives it back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `cuMemUnmap`: mapped in a reservation.
    Placed,
    /// `cuMemFree`.
    Own,
    /// `cuIpcCloseMemHandle`, so many times.
    Opened(usize),
}

/// Memory at an address.
pub struct Mapping {
    pub memory: Arc<Memory>,
    pub size: usize,
    pub access: Access,
    pub kind: Kind,
}

/// An address as what the kernel's calls take.
pub fn pointer(address: u64) -> *mut c_void {
    ptr::with_exposed_provenance_mut(address as usize)
}

impl State {
    /// The mapping that an address lies in, and its start.
    pub fn find(&self, address: u64) -> Result<(u64, &Mapping), c_uint> {
        let (start, mapping) = self.mapped.range(..=address).next_back().ok_or(INVALID_VALUE)?;
        if address - start < mapping.size as u64 { Ok((*start, mapping)) } else { Err(INVALID_VALUE) }
    }

    /// Bytes that can be read, all of one mapping.
    pub fn readable(&self, address: u64, bytes: usize) -> Result<*mut u8, c_uint> {
        self.accessible(address, bytes).map(|_| pointer(address).cast())
    }

    /// The same for writing.
    pub fn writable(&self, address: u64, bytes: usize) -> Result<*mut u8, c_uint> {
        match self.accessible(address, bytes)? {
            Access::ReadWrite => Ok(pointer(address).cast()),
            _ => Err(ILLEGAL_ADDRESS),
        }
    }

    fn accessible(&self, address: u64, bytes: usize) -> Result<Access, c_uint> {
        let (start, mapping) = self.find(address)?;
        let fits = bytes as u64 <= start + mapping.size as u64 - address;
        if fits && mapping.access != Access::None { Ok(mapping.access) } else { Err(INVALID_VALUE) }
    }

    /// Maps a whole memory for reading and writing, where the kernel likes.
    pub fn map(&mut self, memory: Arc<Memory>, kind: Kind) -> Result<u64, c_uint> {
        let (rights, size) = (ProtFlags::READ | ProtFlags::WRITE, memory.size);
        // SAFETY: at an address of the kernel's choice it replaces no other mapping.
        let start = unsafe { mmap(ptr::null_mut(), size, rights, MapFlags::SHARED, &memory.descriptor, 0) };
        let start = start.map_err(code)?.expose_provenance() as u64;
        self.mapped.insert(start, Mapping { memory, size, access: Access::ReadWrite, kind });
        Ok(start)
    }

    /// Takes away what begins there and is of this kind.
    pub fn unmap(&mut self, start: u64, is_kind: impl FnOnce(Kind) -> bool) -> Result<(), c_uint> {
        let mapping = self.mapped.get(&start).filter(|mapping| is_kind(mapping.kind)).ok_or(INVALID_VALUE)?;
        // SAFETY: mapped by `map`; every access of ours is under the lock that is held.
        unsafe { munmap(pointer(start), mapping.size) }.map_err(code)?;
        self.mapped.remove(&start);
        Ok(())
    }

    /// The placed mapping of just this range.
    fn placed(&mut self, start: u64, size: usize) -> Result<&mut Mapping, c_uint> {
        let mapping = self.mapped.get_mut(&start).ok_or(INVALID_VALUE)?;
        if mapping.size == size && mapping.kind == Kind::Placed { Ok(mapping) } else { Err(INVALID_VALUE) }
    }

    /// Whether something is mapped in a range.
    fn is_taken(&self, start: u64, size: usize) -> bool {
        let before = self.mapped.range(..start + size as u64).next_back();
        before.is_some_and(|(other, mapping)| other + mapping.size as u64 > start)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAddressReserve(
    start: *mut sys::CUdeviceptr,
    size: usize,
    _alignment: usize,
    _wish: sys::CUdeviceptr,
    _flags: c_ulonglong,
) -> c_uint {
    answer(|state| {
        state.current()?;
        if size == 0 || !size.is_multiple_of(super::memory::GRANULARITY) {
            return Err(INVALID_VALUE);
        }
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: at an address of the kernel's choice it replaces no other mapping.
        let reserved = unsafe { mmap_anonymous(ptr::null_mut(), size, ProtFlags::empty(), flags) };
        let reserved = reserved.map_err(code)?.expose_provenance() as u64;
        state.reserved.insert(reserved, size);
        // SAFETY: the caller's number.
        unsafe { *start = reserved };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAddressFree(start: sys::CUdeviceptr, size: usize) -> c_uint {
    answer(|state| {
        state.current()?;
        if state.reserved.get(&start) != Some(&size) || state.is_taken(start, size) {
            return Err(INVALID_VALUE);
        }
        // SAFETY: our reservation as a whole, with nothing in it.
        unsafe { munmap(pointer(start), size) }.map_err(code)?;
        state.reserved.remove(&start);
        Ok(())
    })
}

/// Nothing can be done with it until its access is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemMap(
    start: sys::CUdeviceptr,
    size: usize,
    offset: usize,
    handle: sys::CUmemGenericAllocationHandle,
    _flags: c_ulonglong,
) -> c_uint {
    answer(|state| {
        state.current()?;
        let memory = Arc::clone(state.handles.get(&handle).ok_or(INVALID_VALUE)?);
        let (first, reserved) = state.reserved.range(..=start).next_back().ok_or(INVALID_VALUE)?;
        // CUDA's own rule for `offset` is that it is 0.
        let fits = offset == 0 && size > 0 && size <= memory.size && size <= *reserved;
        if !fits || start - first > (reserved - size) as u64 || state.is_taken(start, size) {
            return Err(INVALID_VALUE);
        }
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: lies in a reservation of ours, where nothing else is mapped.
        unsafe { mmap(pointer(start), size, ProtFlags::empty(), flags, &memory.descriptor, 0) }
            .map_err(code)?;
        state.mapped.insert(start, Mapping { memory, size, access: Access::None, kind: Kind::Placed });
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemUnmap(start: sys::CUdeviceptr, size: usize) -> c_uint {
    answer(|state| {
        state.current()?;
        state.placed(start, size)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: our own mapping in our own reservation, which takes the addresses back.
        unsafe { mmap_anonymous(pointer(start), size, ProtFlags::empty(), flags) }.map_err(code)?;
        state.mapped.remove(&start);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemSetAccess(
    start: sys::CUdeviceptr,
    size: usize,
    wanted: *const sys::CUmemAccessDesc,
    count: usize,
) -> c_uint {
    answer(|state| {
        state.current()?;
        for index in 0..count {
            // SAFETY: the caller's structures. The flags are read as the number that they are.
            let (device, flags) = unsafe {
                let one = wanted.add(index);
                ((*one).location.id, (&raw const (*one).flags).cast::<c_uint>().read())
            };
            state.gpu(device)?;
            let (access, rights) = match flags {
                0 => (Access::None, MprotectFlags::empty()),
                1 => (Access::Read, MprotectFlags::READ),
                3 => (Access::ReadWrite, MprotectFlags::READ | MprotectFlags::WRITE),
                _ => return Err(INVALID_VALUE),
            };
            let mapping = state.placed(start, size)?;
            // SAFETY: our own mapping; a memory whose descriptor is for reading only gives an error.
            unsafe { mprotect(pointer(start), size, rights) }.map_err(|_| INVALID_VALUE)?;
            mapping.access = access;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetAddressRange_v2(
    start: *mut sys::CUdeviceptr,
    size: *mut usize,
    address: sys::CUdeviceptr,
) -> c_uint {
    answer(|state| {
        state.current()?;
        let (first, mapping) = state.find(address)?;
        // SAFETY: the caller's numbers.
        unsafe { (*start, *size) = (first, mapping.size) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuPointerGetAttribute(
    to: *mut c_void,
    attribute: c_uint,
    address: sys::CUdeviceptr,
) -> c_uint {
    answer(|state| {
        state.current()?;
        let (_, mapping) = state.find(address)?;
        if attribute != Attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL as c_uint {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller's `int`.
        unsafe { *to.cast::<c_int>() = mapping.memory.device };
        Ok(())
    })
}
