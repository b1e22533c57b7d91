//! Says of each file what is here of it, in the manifest's order, and hands the files on to be written. In a relay that
//! waits for what the next node has: what is said is what all of them have. A thread of its own, since digesting takes time
//! and the stream goes on meanwhile.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nixl_connect::{AbortHandle, AnswerSender, MAX_ANSWER, StreamError};
use nixl_transfer_crds::Algorithm;
use nixl_transfer_gpu::Access;

use super::super::content;
use super::super::device::{Device, Named};
use super::super::external::External;
use super::super::failures;
use super::super::hop::{Closing, HopCommand, Partial, Seat, Stop, ToPrepare};
use super::super::nixl::AssignedAgent;
use super::super::pieces::Pieces;
use super::super::signs::Signs;
use super::super::source::answers::Answers;
use super::super::trouble::Trouble;
use super::common::common;
use super::partial_file::PartialFile;
use super::ready::{Place, ReadyFile};
use crate::digest::Hasher;
use crate::protocol::Prefix;
use crate::wire::{AnswerWriter, Has, SIGN_OF_WORK};

/// The source hears at least so often that this end is at work.
const SIGN: Duration = Duration::from_secs(1);

/// What the next node has.
pub(super) struct Behind {
    pub(super) answers: Answers,
    pub(super) abort: AbortHandle,
    pub(super) patience: Duration,
}

pub(super) struct Answerer {
    algorithm: Algorithm,
    patience: Duration,
    hop: mpsc::Sender<HopCommand>,
    answers: AnswerSender,
    behind: Option<Behind>,
    writer: AnswerWriter,
    /// Files below this place were spoken of.
    below: u32,
    ready: Vec<ReadyFile>,
    signed: Instant,
    signs: Arc<Signs>,
    agent: Arc<AssignedAgent>,
    waits: Arc<Closing>,
}

impl Answerer {
    /// Starts the thread. It ends when control opens no more files, with the hop's failure, or with the process.
    pub(super) fn start(
        seat: &mut Seat,
        answers: AnswerSender,
        behind: Option<Behind>,
        signs: Arc<Signs>,
        trouble: Arc<Trouble>,
    ) -> io::Result<()> {
        let Some(to_prepare) = seat.to_prepare.take() else { return Ok(()) };
        let mut answerer = Self {
            algorithm: seat.options.algorithm,
            patience: seat.patience(),
            hop: seat.own_sender(),
            answers,
            behind,
            writer: AnswerWriter::new(MAX_ANSWER),
            below: 0,
            ready: Vec::new(),
            signed: Instant::now(),
            signs,
            agent: Arc::clone(&seat.agent),
            waits: seat.waits(),
        };
        std::thread::Builder::new().name("answerer".into()).spawn(move || {
            for what in to_prepare {
                let answered = match what {
                    ToPrepare::Files(batch) => answerer.answer(batch),
                    ToPrepare::External(metadata) => answerer.open_external(&metadata),
                    ToPrepare::Device { named, library } => answerer.open_device(&named, &library),
                };
                match answered {
                    Ok(()) | Err(Stop::Closed) => {}
                    Err(Stop::Failed(failure)) => return trouble.fail(failure),
                }
            }
        })?;
        Ok(())
    }

    fn open_external(&mut self, metadata: &str) -> Result<(), Stop> {
        let arm = |handle| self.waits.arm(handle);
        let external = External::open(&self.agent.session, metadata, self.patience, arm)?;
        self.opened(Pieces::External(external))
    }

    fn open_device(&mut self, named: &Named, library: &str) -> Result<(), Stop> {
        let device = Device::open(named, library, Access::ReadWrite, self.patience)?;
        self.opened(Pieces::Device(device))
    }

    /// Memory is open for the only file there is: nothing of it is here.
    fn opened(&mut self, memory: Pieces) -> Result<(), Stop> {
        // All of it is sent, whatever the next node has; but that must be ready too.
        self.behind(0)?;
        let place = Place::Pieces(Box::new(memory));
        self.ready.push(ReadyFile { index: 0, place, prefix: None, standing: None });
        self.below = 1;
        self.flush()
    }

    fn answer(&mut self, batch: Vec<Partial>) -> Result<(), Stop> {
        for partial in batch {
            let index = partial.facts.index;
            if partial.facts.prefix.is_some() || partial.existing.is_some() {
                // Those before need not wait for what is read now.
                self.flush()?;
            }
            let behind = self.behind(index)?;
            let (file, has) = self.look(partial, behind)?;
            if let Some(text) = self.writer.add(index, &has) {
                self.send(&text)?;
            }
            self.ready.push(file);
            self.below = index + 1;
        }
        self.flush()
    }

    /// What the next node has of the file; `None` where there is none.
    fn behind(&mut self, index: u32) -> Result<Option<Has>, Stop> {
        let Some(Behind { answers, .. }) = &mut self.behind else { return Ok(None) };
        let at_hand = answers.at_hand(index);
        if matches!(at_hand, Ok(None)) {
            self.flush()?;
        }
        let Some(Behind { answers, abort, patience }) = &mut self.behind else { return Ok(None) };
        let (back, signs) = (&self.answers, &self.signs);
        let has = match at_hand {
            Ok(Some(has)) => Ok(has),
            Err(error) => Err(error),
            // Every sign of the next node is one of this one. That the source is gone is heard elsewhere.
            Ok(None) => answers.of(index, *patience, || {
                signs.give();
                let _ = back.send(SIGN_OF_WORK);
            }),
        };
        match has {
            Ok(has) => Ok(Some(has)),
            Err(error) => {
                tracing::info!(%error, "the next node says nothing more; going on without it");
                // It would be sent what does not fit what it has.
                abort.abort();
                self.behind = None;
                Ok(None)
            }
        }
    }

    /// Proves what is here of a file.
    fn look(&mut self, partial: Partial, behind: Option<Has>) -> Result<(ReadyFile, Has), Stop> {
        let Partial { facts, file, existing } = partial;
        let file = Arc::new(PartialFile::new(file, facts.memory));
        let mut ready = ReadyFile {
            index: facts.index,
            place: Place::File(Arc::clone(&file)),
            prefix: None,
            standing: None,
        };
        let mut own = Has::Nothing;
        if let Some(said) = facts.prefix {
            // Of a longer one than the next node has, no more is of use than that has too.
            let wanted = match &behind {
                Some(Has::Prefix { length, digest }) if *length < said.length => {
                    Prefix { length: *length, digest: digest.clone() }
                }
                _ => said,
            };
            match self.prefix(&file, &wanted)? {
                Some(hasher) => {
                    ready.prefix = Some((wanted.length, hasher));
                    own = Has::Prefix { length: wanted.length, digest: wanted.digest };
                }
                None => {
                    let index = facts.index;
                    tracing::warn!(index, "a partial file has other bytes than were said; it begins anew");
                    let failed = |errno| failures::file("emptying", "a partial file", 0, errno);
                    rustix::fs::ftruncate(&file, 0).map_err(failed)?;
                }
            }
        }
        if own == Has::Nothing
            && let Some(existing) = existing
        {
            let digest = match facts.known {
                Some(known) => Some(known),
                None => self.standing(&existing)?,
            };
            if let Some(digest) = digest {
                ready.standing = Some(digest.clone());
                own = Has::Whole { digest };
            }
        }
        Ok((ready, common(own, behind)))
    }

    /// Proves that a partial file begins with these bytes. What cannot be read is not there.
    fn prefix(&mut self, file: &PartialFile, wanted: &Prefix) -> Result<Option<Hasher>, Stop> {
        let mut hasher = Hasher::new(self.algorithm);
        let whole = self.digest(file, &mut hasher, 0..wanted.length)?;
        Ok((whole && hasher.finish() == wanted.digest).then_some(hasher))
    }

    /// The digest of what stands at the destination. What cannot be read is not the same, and will be replaced.
    fn standing(&mut self, existing: &std::os::fd::OwnedFd) -> Result<Option<Vec<u8>>, Stop> {
        let Ok(stat) = rustix::fs::fstat(existing) else { return Ok(None) };
        let mut hasher = Hasher::new(self.algorithm);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        Ok(self.digest(existing, &mut hasher, 0..size)?.then(|| hasher.finish()))
    }

    /// Digests a range; false when the file is shorter, or cannot be read.
    fn digest(
        &mut self,
        file: impl AsFd,
        hasher: &mut Hasher,
        range: std::ops::Range<u64>,
    ) -> Result<bool, Stop> {
        let unreadable = std::cell::Cell::new(None);
        let failed = |errno| {
            unreadable.set(Some(errno));
            Stop::Closed
        };
        let whole = content::digest(file, hasher, range, failed, |_| self.sign());
        match unreadable.get() {
            Some(errno) => {
                tracing::warn!(%errno, "what is here of a file cannot be read");
                Ok(false)
            }
            None => whole,
        }
    }

    /// A sign of life to the source, when it has had none for long.
    fn sign(&mut self) -> Result<(), Stop> {
        if self.signed.elapsed() < SIGN {
            return Ok(());
        }
        self.signs.give();
        self.send(SIGN_OF_WORK)
    }

    /// Hands on what is ready, then says so: the source sends nothing of a file that cannot be written yet.
    fn flush(&mut self) -> Result<(), Stop> {
        if self.ready.is_empty() {
            return Ok(());
        }
        // The hop may have ended with a failure, and then nobody writes.
        let _ = self.hop.send(HopCommand::Ready(std::mem::take(&mut self.ready)));
        let text = self.writer.settle(self.below);
        self.send(&text)
    }

    fn send(&mut self, text: &[u8]) -> Result<(), Stop> {
        self.signed = Instant::now();
        match self.answers.send(text) {
            Ok(()) => Ok(()),
            // The hop hears of it too, and says why.
            Err(StreamError::Closed | StreamError::PeerLost { .. }) => Err(Stop::Closed),
            Err(error) => Err(failures::stream(&error, self.patience).into()),
        }
    }
}
