//! Copies between host memory and GPU memory, two in flight: one stream and two slots reach 98 % of what more do (fact 27).
//! Every copy is waited for with a deadline, by asking. A copy that does not end in time is no error to go on after: the
//! copier begins nothing more, keeps its slots and the GPU's memory mapped, and the process must end.
#![allow(unsafe_code)] // copies that go on after the call has returned, and slots that they write

#[cfg(test)]
mod tests;

use std::{ops::Range, sync::Arc, time::Duration};

use crate::{
    context::Context,
    error::GpuError,
    mapped::Mapped,
    pinned::Pinned,
    range,
    stream::{Event, Stream},
};

/// Length of a copier's own slot in bytes: small ones stay in the processor's cache until they are hashed (fact 36).
pub const SLOT_BYTES: usize = 1 << 20;
/// Copies at a time, and slots.
const IN_FLIGHT: usize = 2;

/// Copies into and out of one piece of GPU memory.
#[derive(Debug)]
pub struct Copier {
    memory: Arc<Mapped>,
    stream: Stream,
    lanes: [Lane; IN_FLIGHT],
    /// The lane of the next copy, whose last one is the oldest.
    next: usize,
    patience: Duration,
    is_over: bool,
}

/// One of the copies that can be in flight, with its own slot.
#[derive(Debug)]
struct Lane {
    end: Event,
    in_flight: bool,
    /// `None` once the GPU may use it until the process ends.
    slot: Option<Pinned>,
}

impl Lane {
    fn new(context: &Arc<Context>) -> Result<Self, GpuError> {
        let slot = Some(Pinned::allocate(context, SLOT_BYTES)?);
        Ok(Self { end: Event::new(context)?, in_flight: false, slot })
    }

    fn slot(&self) -> Result<*mut u8, GpuError> {
        self.slot.as_ref().map(Pinned::as_ptr).ok_or(GpuError::Over)
    }
}

impl Copier {
    /// A copier with two slots of [`SLOT_BYTES`] of its own. `patience` is the deadline of each single copy, which takes 31 µs
    /// for a MiB when the GPU is idle.
    ///
    /// # Errors
    /// What the driver says.
    pub fn new(memory: Arc<Mapped>, patience: Duration) -> Result<Self, GpuError> {
        let context = memory.context();
        let lanes = [Lane::new(context)?, Lane::new(context)?];
        let stream = Stream::new(context)?;
        Ok(Self { memory, stream, lanes, next: 0, patience, is_over: false })
    }

    /// The GPU's memory.
    pub fn memory(&self) -> &Arc<Mapped> {
        &self.memory
    }

    /// Begins a copy of `bytes` to the GPU's memory from `offset` on, without a slot of the copier's; fast if they are
    /// pinned ([`Pinned`]). Waits first if two are in flight.
    ///
    /// # Errors
    /// [`GpuError::Range`] and [`GpuError::ReadOnly`] before anything happens; what the driver says; [`GpuError::TimedOut`] of
    /// an earlier copy.
    ///
    /// # Safety
    /// `bytes` stay mapped and unchanged until [`Self::wait`] has returned `Ok`, or until the process ends.
    pub unsafe fn to_device(&mut self, offset: u64, bytes: &[u8]) -> Result<(), GpuError> {
        let to = self.memory.at_for_writing(offset, bytes.len() as u64)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let lane = self.lane()?;
        // SAFETY: the host's bytes as this function demands; the GPU's are kept by `memory`.
        let begun = unsafe { self.stream.to_device(to, bytes.as_ptr(), bytes.len()) };
        self.mark(lane, begun)
    }

    /// Begins a copy of the GPU's memory from `offset` on to `bytes`, without a slot of the copier's; fast if they are pinned.
    /// Waits first if two are in flight.
    ///
    /// # Errors
    /// As [`Self::to_device`], but not [`GpuError::ReadOnly`].
    ///
    /// # Safety
    /// `bytes` stay mapped and nobody reads or writes them until [`Self::wait`] has returned `Ok`, or until the process ends.
    pub unsafe fn to_host(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), GpuError> {
        let from = self.memory.at(offset, bytes.len() as u64)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let lane = self.lane()?;
        // SAFETY: the host's bytes as this function demands; the GPU's are kept by `memory`.
        let begun = unsafe { self.stream.to_host(bytes.as_mut_ptr(), from, bytes.len()) };
        self.mark(lane, begun)
    }

    /// Waits until all copies that were begun have ended.
    ///
    /// # Errors
    /// What the driver says of one of them; [`GpuError::TimedOut`].
    pub fn wait(&mut self) -> Result<(), GpuError> {
        for _ in 0..IN_FLIGHT {
            self.lane()?;
            self.next = (self.next + 1) % IN_FLIGHT;
        }
        Ok(())
    }

    /// Copies `bytes` to the GPU's memory from `offset` on, through the slots, and waits for the end.
    ///
    /// # Errors
    /// As [`Self::to_device`].
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), GpuError> {
        let start = self.memory.at_for_writing(offset, bytes.len() as u64)?;
        let mut to = start;
        for piece in bytes.chunks(SLOT_BYTES) {
            let lane = self.lane()?;
            let slot = self.lanes[lane].slot()?;
            // SAFETY: the slot holds at least a piece, no copy of the GPU uses it (see `lane`), and it is nobody else's.
            unsafe { slot.copy_from_nonoverlapping(piece.as_ptr(), piece.len()) };
            // SAFETY: the slot is not touched before `lane` gives it again; the GPU's memory is kept by `memory`.
            let begun = unsafe { self.stream.to_device(to, slot, piece.len()) };
            self.mark(lane, begun)?;
            to += piece.len() as u64;
        }
        self.wait()
    }

    /// Copies the GPU's memory from `offset` on to `bytes`, through the slots. After an error they are partly written.
    ///
    /// # Errors
    /// As [`Self::to_host`].
    pub fn read(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), GpuError> {
        self.memory.at(offset, bytes.len() as u64)?;
        let mut rest = bytes;
        self.digest_with(offset..offset + rest.len() as u64, |piece| {
            let (to, after) = std::mem::take(&mut rest).split_at_mut(piece.len());
            to.copy_from_slice(piece);
            rest = after;
        })
    }

    /// Reads a range back and hands it out in order, in pieces of at most [`SLOT_BYTES`], for a digest: each is hashed while
    /// the next one comes.
    ///
    /// # Errors
    /// As [`Self::to_host`].
    pub fn digest_with(&mut self, bytes: Range<u64>, mut each: impl FnMut(&[u8])) -> Result<(), GpuError> {
        let length = bytes.end.saturating_sub(bytes.start);
        let start = self.memory.at(bytes.start, length)?;
        self.wait()?;
        // The first piece comes, then each next one before the last one is handed out.
        let mut coming: Option<(usize, usize)> = None;
        for (at, size) in range::pieces(length, SLOT_BYTES) {
            let lane = self.lane()?;
            let slot = self.lanes[lane].slot()?;
            // SAFETY: no copy uses the slot and nobody looks at it until the copy's end; the GPU's memory is kept.
            let begun = unsafe { self.stream.to_host(slot, start + at, size) };
            self.mark(lane, begun)?;
            if let Some((lane, size)) = coming.replace((lane, size)) {
                self.hand_out(lane, size, &mut each)?;
            }
        }
        match coming {
            Some((lane, size)) => self.hand_out(lane, size, &mut each),
            None => Ok(()),
        }
    }

    /// Waits for what comes into a lane's slot and hands it out.
    fn hand_out(&mut self, lane: usize, size: usize, each: &mut impl FnMut(&[u8])) -> Result<(), GpuError> {
        self.end(lane)?;
        let slot = self.lanes[lane].slot()?;
        // SAFETY: the slot holds at least `size` bytes, zeroed or written by a copy that has ended; `&mut self` is held, so
        // nothing else is begun with it.
        each(unsafe { std::slice::from_raw_parts(slot, size) });
        Ok(())
    }

    /// The lane of the next copy, free: its last copy has ended.
    fn lane(&mut self) -> Result<usize, GpuError> {
        self.end(self.next)?;
        Ok(self.next)
    }

    /// Waits for the end of a lane's copy, if there is one.
    fn end(&mut self, lane: usize) -> Result<(), GpuError> {
        if self.is_over {
            return Err(GpuError::Over);
        }
        if !self.lanes[lane].in_flight {
            return Ok(());
        }
        match self.lanes[lane].end.wait("a copy between host and GPU", self.patience) {
            Ok(()) => self.lanes[lane].in_flight = false,
            Err(error) => return Err(self.give_up(error)),
        }
        Ok(())
    }

    /// Marks the end of a copy that was begun in this lane.
    fn mark(&mut self, lane: usize, begun: Result<(), GpuError>) -> Result<(), GpuError> {
        // A call that fails has begun nothing, but may tell of what an earlier copy did.
        begun?;
        match self.lanes[lane].end.record(&self.stream) {
            Ok(()) => {
                self.lanes[lane].in_flight = true;
                self.next = (lane + 1) % IN_FLIGHT;
                Ok(())
            }
            Err(error) => Err(self.give_up(error)),
        }
    }

    /// Nobody can know any more what the GPU still does: all that it may use stays until the process ends.
    fn give_up(&mut self, error: GpuError) -> GpuError {
        self.is_over = true;
        self.memory.abandon();
        for lane in &mut self.lanes {
            std::mem::forget(lane.slot.take());
        }
        error
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        if let Err(error) = self.wait() {
            tracing::warn!(%error, "a copier ends with copies that may go on; what they use stays until the process ends");
        }
    }
}
