//! What a receiver offers, checked against the sender's ring before anything moves. Pure.

use std::sync::Arc;

use super::StreamError;
use super::message::StreamId;
use crate::device::Device;
use crate::memory::Ring;
use crate::metadata::{OperationKind, RdmaMetadata};

/// Where the chunks go; known from `connect` on.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) peer: Arc<str>,
    pub(super) stream: StreamId,
    /// The address of each of the receiver's slots.
    pub(super) slots: Vec<usize>,
}

impl Target {
    /// Takes an offer whose slots are exactly as many and as large as the ring's, in host memory, to be written.
    pub(super) fn of(receiver: &RdmaMetadata, ring: Ring) -> Result<Self, StreamError> {
        Ok(Self {
            peer: receiver.agent().agent().into(),
            stream: StreamId::of(receiver.notification_key()),
            slots: fitting_slots(receiver, ring)?,
        })
    }
}

fn fitting_slots(receiver: &RdmaMetadata, ring: Ring) -> Result<Vec<usize>, StreamError> {
    let malformed = |what: String| Err(StreamError::Malformed(what));
    if receiver.operation_kind() != OperationKind::Write {
        return malformed("the receiver offers memory to read, not to write".to_owned());
    }
    let descriptors = receiver.descriptors();
    if descriptors.len() != ring.slots {
        return malformed(format!(
            "the receiver has {} slots, this sender {}",
            descriptors.len(),
            ring.slots
        ));
    }
    let mut slots = Vec::with_capacity(descriptors.len());
    for (index, descriptor) in descriptors.iter().enumerate() {
        if descriptor.device != Device::Cpu {
            return malformed(format!(
                "slot {index} is on {}, a stream has slots in host memory",
                descriptor.device
            ));
        }
        if descriptor.size != ring.chunk_size as u64 {
            return malformed(format!("slot {index} has {} bytes, not {}", descriptor.size, ring.chunk_size));
        }
        match usize::try_from(descriptor.ptr) {
            Ok(address) => slots.push(address),
            Err(_) => return malformed(format!("slot {index} has an address beyond this machine's")),
        }
    }
    Ok(slots)
}
