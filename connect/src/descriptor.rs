//! Local memory for an operation: owned, or lent under a stated contract. Its registration with a connector.
#![allow(unsafe_code)] // slices of memory that NIXL reads and writes from outside of Rust

use std::any::Any;
use std::sync::Arc;

use crate::connector::Connector;
use crate::device::Device;
use crate::memory::{InFlight, Memory, MemoryError};
use crate::metadata::SerializedDescriptor;
use crate::session::{Backing, Link, RegionId, SessionError};

/// A piece of local memory that operations move bytes into or out of. An operation takes it and gives it back when it is
/// over.
///
/// An operation registers its descriptors with NIXL and takes the registration back at its end; with
/// [`Descriptor::register_with_connector`] it stays registered from one operation to the next.
///
/// Bytes that were offered to a peer are as trustworthy as the peer: NIXL does not stop one that writes later, or again.
/// Both ends of an operation are one trust domain.
///
/// # Example
/// ```
/// use nixl_connect::{Descriptor, Device};
///
/// let source = Descriptor::from_vec(vec![7; 64])?;
/// assert_eq!((source.device(), source.size()), (Device::Cpu, 64));
/// assert_eq!(source.bytes(), Some(&[7; 64][..]));
///
/// let mut target = Descriptor::zeroed(64)?;
/// if let Some(bytes) = target.bytes_mut() {
///     bytes[0] = 1;
/// }
/// # Ok::<(), nixl_connect::MemoryError>(())
/// ```
#[derive(Debug)]
pub struct Descriptor {
    memory: Arc<Memory>,
    registration: Option<Registration>,
}

#[derive(Debug)]
struct Registration {
    link: Link,
    region: RegionId,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.link.release(self.region);
    }
}

impl Descriptor {
    /// New host memory of `size` bytes, all 0, page-aligned, with every page present.
    ///
    /// # Errors
    /// `Range` when `size` is 0, `System` when the kernel gives no memory.
    pub fn zeroed(size: usize) -> Result<Self, MemoryError> {
        Memory::zeroed(size).map(Self::of)
    }

    /// Takes a vector's bytes as they are, without a copy. Spare capacity is no part of the descriptor.
    ///
    /// # Errors
    /// `Range` when it is empty.
    pub fn from_vec(bytes: Vec<u8>) -> Result<Self, MemoryError> {
        Memory::from_vec(bytes).map(Self::of)
    }

    /// Memory of the caller: borrowed, shared with other processes, or on a device. `owner` is dropped when neither the
    /// descriptor nor NIXL needs the memory any more, which may be never (see [`PassiveOperation`](crate::PassiveOperation)).
    /// It may be dropped on any thread, the agent's too, so its drop must not block. A panic in it is caught and logged as an
    /// error, on whatever thread that is.
    ///
    /// ```
    /// # use std::sync::atomic::AtomicU8;
    /// # struct GpuBuffer(AtomicU8);
    /// # impl GpuBuffer {
    /// #     fn address(&self) -> *mut u8 { self.0.as_ptr() }
    /// #     fn len(&self) -> usize { 1 }
    /// # }
    /// use nixl_connect::{Descriptor, Device, MemoryError};
    ///
    /// /// A buffer that is freed when it is dropped.
    /// fn of_gpu(buffer: GpuBuffer) -> Result<Descriptor, MemoryError> {
    ///     let (address, length) = (buffer.address(), buffer.len());
    ///     // SAFETY: memory of the first GPU, which lives as long as the buffer; nobody else has it.
    ///     unsafe { Descriptor::from_raw_parts(Device::Cuda(0), address, length, buffer) }
    /// }
    /// # assert_eq!(of_gpu(GpuBuffer(AtomicU8::new(0)))?.device(), Device::Cuda(0));
    /// # Ok::<(), MemoryError>(())
    /// ```
    ///
    /// # Errors
    /// `Range` when `ptr` or `size` is 0, or the range overflows; `owner` is dropped.
    ///
    /// # Safety
    /// Until `owner` is dropped, `size` bytes from `ptr` must be valid memory of `device` in this process: mapped, and not
    /// used for anything else. While an operation that writes them (Read, Writable) is not over, no reference to them may
    /// exist; while one that reads them (Readable, Write) is not over, nobody may write them. A borrow that ends before
    /// `owner` is dropped does not satisfy this, however short the operation is.
    pub unsafe fn from_raw_parts(
        device: Device,
        ptr: *mut u8,
        size: usize,
        owner: impl Any + Send + Sync,
    ) -> Result<Self, MemoryError> {
        Memory::lent(device, ptr as u64, size as u64, Box::new(owner)).map(Self::of)
    }

    fn of(memory: Memory) -> Self {
        Self { memory: Arc::new(memory), registration: None }
    }

    /// Where the memory lives.
    pub fn device(&self) -> Device {
        self.serialized().device
    }

    /// Address of the first byte, in this process or on the device.
    pub fn ptr(&self) -> u64 {
        self.serialized().ptr
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.serialized().size
    }

    /// The descriptor as it stands on the wire.
    pub fn serialized(&self) -> SerializedDescriptor {
        self.memory.range()
    }

    /// The bytes, of memory that the descriptor owns; `None` for memory of the caller.
    pub fn bytes(&self) -> Option<&[u8]> {
        // SAFETY: the memory is owned, initialised and lives as long as `self`; whoever can call this has no operation
        // that writes it, for such an operation holds the descriptor by value until it is over.
        self.memory.owned().map(|(start, length)| unsafe { std::slice::from_raw_parts(start, length) })
    }

    /// The bytes, to be written; `None` for memory of the caller, and while a [`WriteOperation`](crate::WriteOperation) that
    /// was dropped in flight still reads them.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        if self.memory.is_in_flight() {
            return None;
        }
        // SAFETY: as in `bytes`; an operation that reads the memory holds an `Arc` of the descriptor for as long as a peer
        // may read it, so there is no `&mut self` then; a transfer that outlives its operation was ruled out above, and
        // with `&mut self` no other one can begin.
        self.memory.owned().map(|(start, length)| unsafe { std::slice::from_raw_parts_mut(start, length) })
    }

    /// Registers the memory until the descriptor is dropped or [`Descriptor::deregister_with_connector`] is called, so
    /// that operations need not. Doing it twice is no error. Blocks this thread until it is done; pages of host memory are
    /// pinned by some transports, which counts against the limit on locked memory.
    ///
    /// # Errors
    /// `OtherSession` when it is registered with another connector, `Nixl` when NIXL does not register it, `NoAnswer` or
    /// `Closed` when the agent's thread does not answer.
    pub fn register_with_connector(&mut self, connector: &Connector) -> Result<(), SessionError> {
        let link = connector.link();
        if self.is_registered_elsewhere(link) {
            return Err(SessionError::OtherSession);
        }
        if self.registration.is_none() {
            let region = link.register(self.backing())?;
            self.registration = Some(Registration { link: link.clone(), region });
        }
        Ok(())
    }

    /// Takes the registration back; operations on the memory keep their own. Does not wait. It hides nothing from a peer that
    /// has the address: over TCP only the end of the process does.
    pub fn deregister_with_connector(&mut self) {
        self.registration = None;
    }

    /// Whether [`Descriptor::register_with_connector`] is in force.
    pub fn is_registered(&self) -> bool {
        self.registration.is_some()
    }

    pub(crate) fn is_registered_elsewhere(&self, link: &Link) -> bool {
        self.registration.as_ref().is_some_and(|registration| !registration.link.is_same(link))
    }

    pub(crate) fn backing(&self) -> Arc<dyn Backing> {
        Arc::clone(&self.memory) as Arc<dyn Backing>
    }

    pub(crate) fn in_flight(&self) -> InFlight {
        InFlight::new(Arc::clone(&self.memory))
    }
}

impl AsRef<Descriptor> for Descriptor {
    fn as_ref(&self) -> &Descriptor {
        self
    }
}

/// The local side of an operation: one descriptor or several, in the order of the peer's. Made by `into()` from a `D`, a
/// `Vec<D>` or an array of `D`. Where `D` is `Arc<Descriptor>`, also from a [`Descriptor`] or a vector of them.
#[derive(Debug)]
pub struct Locals<D>(pub(crate) Vec<D>);

impl<D> From<D> for Locals<D> {
    fn from(descriptor: D) -> Self {
        Self(vec![descriptor])
    }
}

impl<D> From<Vec<D>> for Locals<D> {
    fn from(descriptors: Vec<D>) -> Self {
        Self(descriptors)
    }
}

impl<D, const N: usize> From<[D; N]> for Locals<D> {
    fn from(descriptors: [D; N]) -> Self {
        Self(descriptors.into())
    }
}

impl From<Descriptor> for Locals<Arc<Descriptor>> {
    fn from(descriptor: Descriptor) -> Self {
        Self(vec![Arc::new(descriptor)])
    }
}

impl<const N: usize> From<[Descriptor; N]> for Locals<Arc<Descriptor>> {
    fn from(descriptors: [Descriptor; N]) -> Self {
        Self(descriptors.into_iter().map(Arc::new).collect())
    }
}

impl From<Vec<Descriptor>> for Locals<Arc<Descriptor>> {
    fn from(descriptors: Vec<Descriptor>) -> Self {
        Self(descriptors.into_iter().map(Arc::new).collect())
    }
}
