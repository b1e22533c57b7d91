//! Fills slots of the stream with frames and sends them when they are full. Waits for free slots, each time at most the
//! hop's patience.

use std::time::{Duration, Instant};

use nixl_connect::{Sender, SlotMut, StreamError};
use nixl_transfer_crds::Reason;

use super::super::failures;
use super::limiter::Limiter;
use crate::protocol::Failure;
use crate::protocol::entry::Entry;
use crate::wire::{FrameWriter, data_room, encoded_entry};

/// A piece of a file is not begun in less room than this, unless the file's rest fits: it would be mostly header.
const SMALLEST_PIECE: usize = 4096;

/// The slot that is being filled.
#[derive(Debug)]
pub(super) struct Packer {
    // Before the sender: it is given back first.
    slot: Option<SlotMut>,
    filled: usize,
    sender: Sender,
    patience: Duration,
    brake: Option<Brake>,
}

/// The limit of a hop, and whether the hop is closed.
struct Brake {
    limiter: Limiter,
    is_closed: Box<dyn Fn() -> bool + Send>,
}

/// Longest rest of a limited hop without a look at whether it was closed.
const REST: Duration = Duration::from_millis(50);

impl Packer {
    pub(super) fn new(sender: Sender, patience: Duration) -> Self {
        Self { slot: None, filled: 0, sender, patience, brake: None }
    }

    /// From now on chunks are small and go no faster than the limiter says.
    pub(super) fn limit(&mut self, limiter: Limiter, is_closed: impl Fn() -> bool + Send + 'static) {
        self.brake = Some(Brake { limiter, is_closed: Box::new(is_closed) });
    }

    /// Chunks that had to be sent again.
    pub(super) fn resent(&self) -> u64 {
        self.sender.progress().snapshot().resent
    }

    /// Sends what is packed, if anything.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        if self.filled == 0 {
            return Ok(());
        }
        let filled = std::mem::take(&mut self.filled);
        if let Some(brake) = &mut self.brake {
            brake.hold(filled);
        }
        match self.slot.take() {
            Some(slot) => slot.send(filled).map(drop).map_err(|error| self.failure(&error)),
            None => Ok(()),
        }
    }

    /// Writes one frame that fits any slot.
    pub(super) fn write(&mut self, frame: impl Fn(&mut FrameWriter<'_>) -> bool) -> Result<(), Failure> {
        for _ in 0..2 {
            let mut writer = self.writer()?;
            if frame(&mut writer) {
                self.filled = writer.position();
                return Ok(());
            }
            self.flush()?;
        }
        Err(too_small())
    }

    /// Writes a part of the manifest.
    pub(super) fn manifest(&mut self, entries: &[Entry]) -> Result<(), Failure> {
        let texts: Vec<Vec<u8>> = entries.iter().map(encoded_entry).collect();
        let mut rest = texts.as_slice();
        while !rest.is_empty() {
            let fresh = self.filled == 0;
            let mut writer = self.writer()?;
            match writer.manifest(rest.iter().map(Vec::as_slice)) {
                0 if fresh => return Err(too_small()),
                0 => self.flush()?,
                written => {
                    self.filled = writer.position();
                    rest = rest.get(written..).unwrap_or_default();
                }
            }
        }
        Ok(())
    }

    /// Room for the next piece of a file of which `left` bytes are left: at least one byte, at most `left`.
    pub(super) fn piece(&mut self, left: u64) -> Result<FrameWriter<'_>, Failure> {
        let length = self.room_for_pieces()?;
        let room = data_room(length.saturating_sub(self.filled));
        if room == 0 || (room < SMALLEST_PIECE && (room as u64) < left) {
            self.flush()?;
        }
        let filled = self.filled;
        let bytes: &mut [u8] = self.slot()?;
        let end = length.min(bytes.len());
        Ok(FrameWriter::new(&mut bytes[..end], filled))
    }

    /// The frame that was written last ends here. A full slot goes out.
    pub(super) fn written_to(&mut self, position: usize) -> Result<(), Failure> {
        self.filled = position;
        let length = self.room_for_pieces()?;
        if data_room(length.saturating_sub(position)) == 0 { self.flush() } else { Ok(()) }
    }

    /// Sends the rest and waits until the target has taken everything.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.flush()?;
        // An empty slot that is held would never come back.
        self.slot = None;
        super::finish(&mut self.sender, self.patience).map_err(|error| self.failure(&error))
    }

    /// How far pieces of files may fill a chunk.
    fn room_for_pieces(&mut self) -> Result<usize, Failure> {
        let length = self.slot()?.len();
        Ok(self.brake.as_ref().map_or(length, |brake| length.min(brake.limiter.chunk())))
    }

    fn writer(&mut self) -> Result<FrameWriter<'_>, Failure> {
        let filled = self.filled;
        Ok(FrameWriter::new(self.slot()?, filled))
    }

    fn slot(&mut self) -> Result<&mut SlotMut, Failure> {
        let slot = match self.slot.take() {
            Some(slot) => slot,
            None => {
                let slot = super::patiently(&mut self.sender, self.patience, Sender::slot);
                slot.map_err(|error| self.failure(&error))?
            }
        };
        Ok(self.slot.insert(slot))
    }

    fn failure(&self, error: &StreamError) -> Failure {
        failures::stream(error, self.patience)
    }
}

impl Brake {
    /// Rests until so many bytes may go. This is the pace itself, not a wait for somebody. A closed hop goes on at once,
    /// and finds its stream aborted.
    fn hold(&mut self, bytes: usize) {
        let at = self.limiter.take(bytes, Instant::now());
        loop {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() || (self.is_closed)() {
                return;
            }
            std::thread::sleep(left.min(REST));
        }
    }
}

impl std::fmt::Debug for Brake {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Brake").field("limiter", &self.limiter).finish_non_exhaustive()
    }
}

fn too_small() -> Failure {
    Failure::new(Reason::InvalidSpec, "a path is too long for the chunks; raise spec.transport.chunkSize")
}
