//! One piece of memory as it stands on the wire: device, address, size. It owns nothing. No I/O.

use serde::{Deserialize, Serialize};

use crate::device::Device;

/// Memory of some process, named by address. The field order is the wire's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SerializedDescriptor {
    /// Where the memory lives.
    pub device: Device,
    /// First byte, an address in the owner's process; never 0.
    pub ptr: u64,
    /// Length in bytes, at least 1; `ptr + size` does not overflow.
    pub size: u64,
}

impl SerializedDescriptor {
    /// What is wrong with the numbers, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if self.ptr == 0 {
            return Some("ptr is 0");
        }
        if self.size == 0 {
            return Some("size is 0");
        }
        if self.ptr.checked_add(self.size).is_none() {
            return Some("ptr + size overflows");
        }
        None
    }
}
