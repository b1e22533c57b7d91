//! The files of a target one after the other: which is written now, what comes when it is whole, and the wait until the last
//! one is stored.

use std::time::Instant;

use nixl_transfer_crds::Reason;

use super::super::hop::{HopCommand, Stop, out_of_turn};
use super::assembly::FileFacts;
use super::ready::{OpenFile, Place, ReadyFile};
use super::store::FinishedFile;
use super::{LOOK, STORE, Target};
use crate::digest::Hasher;
use crate::protocol::{Failure, FromWorker};
use crate::wire::SIGN_OF_WORK;

impl Target {
    /// So many bytes of the next file need not come.
    pub(super) fn here_already(&mut self, bytes: u64) {
        self.in_place += bytes;
        self.resumed += bytes;
    }

    /// The file that is being written, or the next one from its first byte on.
    pub(super) fn opened(&mut self, file: &FileFacts) -> Result<OpenFile, Stop> {
        if let Some(open) = self.current.take() {
            return Ok(open);
        }
        let path = self.assembly.path(file.index);
        let algorithm = self.seat.options.algorithm;
        let ready = self.next_file(file)?;
        if ready.prefix.is_some() {
            // Before the first byte of it is written over.
            let (hop, digest) = (self.seat.id, Hasher::new(algorithm).finish());
            self.seat.outbox.send(&FromWorker::Durable { hop, index: file.index, length: 0, digest });
        }
        Ok(ready.begin(algorithm, &path)?)
    }

    /// The next file, when it is ready to be written.
    pub(super) fn next_file(&mut self, file: &FileFacts) -> Result<ReadyFile, Stop> {
        let patience = self.seat.patience();
        let deadline = Instant::now() + patience;
        if self.ready.is_empty() {
            // Control's window may move only with these.
            self.store.hand_over();
        }
        loop {
            match self.ready.pop_front() {
                Some(ready) if ready.index == file.index => return Ok(ready),
                Some(_) => return Err(out_of_turn().into()),
                None => match self.seat.command(deadline)? {
                    Some(HopCommand::Ready(files)) => self.ready.extend(files),
                    Some(_) => return Err(out_of_turn().into()),
                    None => {
                        let message = format!(
                            "no file to write into was opened within {} s; look at the volume's disk",
                            patience.as_secs()
                        );
                        return Err(Failure::new(Reason::ProgressDeadlineExceeded, message).into());
                    }
                },
            }
        }
    }

    /// A file has all its bytes: compares their digest, and hands it over to be stored.
    pub(super) fn complete(&mut self, file: FileFacts, digest: &[u8]) -> Result<(), Stop> {
        let algorithm = self.seat.options.algorithm;
        let open = self.opened(&file)?;
        let found = open.hasher.finish();
        let path = self.assembly.path(file.index);
        if found != digest {
            let message = format!("{path}: the digest of what arrived is not the one that the source sent");
            return Err(Failure::new(Reason::IntegrityError, message).into());
        }
        self.digests.push(file.index, digest);
        let identical = open.standing.as_deref() == Some(digest);
        let written = match open.place {
            Place::File(partial) => Some((partial, identical)),
            Place::Pieces(mut memory) => {
                let mut told = Instant::now();
                self.tell_progress();
                memory.prove(file.size, algorithm, digest, || {
                    if told.elapsed() >= LOOK {
                        told = Instant::now();
                        self.signs.give();
                        // The source waits meanwhile. That it is gone is heard elsewhere.
                        let _ = self.answers.send(SIGN_OF_WORK);
                        self.tell_progress();
                    }
                })?;
                self.external = memory.into_external();
                None
            }
        };
        self.store.finish(FinishedFile { facts: file, path, digest: found, written });
        Ok(())
    }

    /// Waits until the last file was reported.
    pub(super) fn await_store(&mut self) -> Result<(), Stop> {
        let mut stored = self.store.stored();
        loop {
            match self.seat.command(Instant::now() + STORE)? {
                Some(HopCommand::Drained) => return Ok(()),
                // Control opens ahead; more than the manifest has it does not open.
                Some(_) => return Err(out_of_turn().into()),
                None => {
                    let now = self.store.stored();
                    if std::mem::replace(&mut stored, now) == now {
                        let message = format!("no file reached the disk within {} s", STORE.as_secs());
                        return Err(Failure::new(Reason::IoError, message).into());
                    }
                }
            }
        }
    }
}
