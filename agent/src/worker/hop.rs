//! One side of one hop in a worker: a thread of its own, told what to do by the main thread, ended by it at any time.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use nixl_connect::AbortHandle;
use nixl_transfer_crds::Reason;

use super::device::{self, Named};
use super::nixl::AssignedAgent;
use super::outbox::Outbox;
use super::target::ReadyFile;
use crate::protocol::entry::{Entry, Totals};
use crate::protocol::{Failure, FileToRead, FileToWrite, FromWorker, HopId, StreamOptions, Used, WorkerName};

/// Longer than any target stores. Control closes the hop, or ends the worker, when it is known that nothing comes of it.
const COMPLETED_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);

/// What a hop's thread is told.
#[derive(Debug)]
pub(super) enum HopCommand {
    /// The other side's metadata and the name it must carry.
    Connect(Peer),
    /// Source: a part of the manifest.
    Manifest { entries: Vec<Entry>, totals: Option<Totals> },
    /// Source: files to read.
    Files(Vec<(FileToRead, OwnedFd)>),
    /// Source: the file of the manifest is a workload's memory.
    External { metadata: String, expected: Option<Vec<u8>> },
    /// Source: the file of the manifest is memory of a GPU, reached by this driver.
    Device { named: Named, library: Arc<str> },
    /// The workload whose memory was used shall be told that all is well.
    Complete,
    /// Target, from its own answerer: files to write.
    Ready(Vec<ReadyFile>),
    /// Target, from its own store: every file was reported.
    Drained,
    /// Target, from one that works beside it.
    HelperFailed(Failure),
}

/// The other side, as control names it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) metadata: String,
    pub(super) worker: WorkerName,
    /// How long it may stand still, where that is not the hop's own measure.
    pub(super) patience: Option<Duration>,
}

/// A file to write, and what stands at its destination when that is to be compared.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) facts: FileToWrite,
    pub(super) file: OwnedFd,
    pub(super) existing: Option<OwnedFd>,
}

impl Partial {
    /// Puts files and descriptors together; `None` when their numbers do not fit.
    pub(super) fn list(files: Vec<FileToWrite>, descriptors: Vec<OwnedFd>) -> Option<Vec<Self>> {
        let mut descriptors = descriptors.into_iter();
        let mut partials = Vec::with_capacity(files.len());
        for facts in files {
            let file = descriptors.next()?;
            let existing = if facts.compare { Some(descriptors.next()?) } else { None };
            partials.push(Self { facts, file, existing });
        }
        descriptors.next().is_none().then_some(partials)
    }
}

/// What a target shall make ready to be written.
#[derive(Debug)]
pub(super) enum ToPrepare {
    /// Files.
    Files(Vec<Partial>),
    /// A workload's memory, by its RdmaMetadata, for the one file of the manifest.
    External(String),
    /// Memory of a GPU, reached by this driver, for the one file of the manifest.
    Device { named: Named, library: Arc<str> },
}

/// Why a hop's thread stops early.
#[derive(Debug)]
pub(super) enum Stop {
    /// Control closed the hop; nothing is reported.
    Closed,
    /// Something failed; control is told.
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The main thread's end of a hop.
#[derive(Debug)]
pub(super) struct Hop {
    commands: mpsc::Sender<HopCommand>,
    to_prepare: mpsc::Sender<ToPrepare>,
    closing: Arc<Closing>,
}

#[derive(Debug, Default)]
pub(super) struct Closing {
    closed: AtomicBool,
    waits: Mutex<Vec<AbortHandle>>,
}

impl Closing {
    /// From now on `Close` also ends a wait for what this belongs to.
    pub(super) fn arm(&self, wait: AbortHandle) {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_closed() {
            wait.abort();
        }
        waits.push(wait);
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        waits.iter().for_each(AbortHandle::abort);
    }
}

/// The thread's end of a hop.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) id: HopId,
    pub(super) options: StreamOptions,
    pub(super) agent: Arc<AssignedAgent>,
    pub(super) outbox: Outbox,
    /// Target: what is to be written, for its answerer.
    pub(super) to_prepare: Option<mpsc::Receiver<ToPrepare>>,
    commands: mpsc::Receiver<HopCommand>,
    /// What came while the other side's metadata was waited for.
    early: VecDeque<HopCommand>,
    own: mpsc::Sender<HopCommand>,
    closing: Arc<Closing>,
    opened: Instant,
    /// What control was told last of what UCX uses.
    used: Option<Used>,
}

impl Hop {
    /// Starts the thread. It is owned by its `Seat`: it ends when the hop is over, fails, or is closed, and the process
    /// does not wait for it. What it fails with is told to control.
    pub(super) fn start(
        id: HopId,
        options: StreamOptions,
        agent: Arc<AssignedAgent>,
        outbox: Outbox,
        body: impl FnOnce(Seat) -> Result<(), Stop> + Send + 'static,
    ) -> io::Result<Self> {
        let (commands, inbox) = mpsc::channel();
        let (to_prepare, comes) = mpsc::channel();
        let closing = Arc::new(Closing::default());
        let seat = Seat {
            id,
            options,
            agent,
            outbox: outbox.clone(),
            to_prepare: Some(comes),
            commands: inbox,
            early: VecDeque::new(),
            own: commands.clone(),
            closing: Arc::clone(&closing),
            opened: Instant::now(),
            used: None,
        };
        std::thread::Builder::new().name(format!("hop-{}", id.0)).spawn(move || match body(seat) {
            Ok(()) | Err(Stop::Closed) => {}
            Err(Stop::Failed(failure)) => {
                outbox.send(&FromWorker::Failed { hop: id, failure });
                if device::is_over() {
                    // For the other hops too: in this process each of them would fail, again and again.
                    nixl_connect::exit_now(5);
                }
            }
        })?;
        Ok(Self { commands, to_prepare, closing })
    }

    pub(super) fn tell(&self, command: HopCommand) {
        if self.commands.send(command).is_err() {
            tracing::debug!("a command came after the hop's end");
        }
    }

    /// Gives a target what it shall write.
    pub(super) fn prepare(&self, what: ToPrepare) {
        if self.to_prepare.send(what).is_err() {
            tracing::debug!("files came after the hop's end");
        }
    }

    /// Ends the hop, whatever its thread waits for.
    pub(super) fn close(self) {
        self.closing.close();
        // A thread that waits for a command has its own sender and would not see the end of this one.
        let _ = self.commands.send(HopCommand::Drained);
    }
}

impl Seat {
    /// From now on `Close` also ends a wait within the stream.
    pub(super) fn arm(&self, stream: AbortHandle) {
        self.closing.arm(stream);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closing.is_closed()
    }

    /// What ends this hop's waits, for those that wait in another thread.
    pub(super) fn waits(&self) -> Arc<Closing> {
        Arc::clone(&self.closing)
    }

    /// Tells another part of the hop's thread whether the hop is closed.
    pub(super) fn closing(&self) -> impl Fn() -> bool + Send + use<> {
        let closing = Arc::clone(&self.closing);
        move || closing.is_closed()
    }

    /// Tells control what UCX moves the chunks with, if that is news. For a side that is connected.
    pub(super) fn tell_used(&mut self) {
        let used = self.agent.used(self.options.chunk_size);
        if self.used.as_ref() != Some(&used) {
            self.outbox.send(&FromWorker::Uses { hop: self.id, used: used.clone() });
            self.used = Some(used);
        }
    }

    /// Longest time without a chunk.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(self.options.progress_seconds.max(1))
    }

    /// For those who tell this hop something from another thread of the worker.
    pub(super) fn own_sender(&self) -> mpsc::Sender<HopCommand> {
        self.own.clone()
    }

    /// A command that is there already.
    pub(super) fn command_at_hand(&mut self) -> Result<Option<HopCommand>, Stop> {
        if self.is_closed() {
            return Err(Stop::Closed);
        }
        if let Some(command) = self.early.pop_front() {
            return Ok(Some(command));
        }
        self.commands.try_recv().map_or(Ok(None), |command| self.heard(command).map(Some))
    }

    /// The next command; `None` when none came by the deadline.
    pub(super) fn command(&mut self, deadline: Instant) -> Result<Option<HopCommand>, Stop> {
        if let Some(command) = self.early.pop_front() {
            return Ok(Some(command));
        }
        self.new_command(deadline)
    }

    fn new_command(&self, deadline: Instant) -> Result<Option<HopCommand>, Stop> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.commands.recv_timeout(left) {
            Ok(command) => self.heard(command).map(Some),
            Err(_) if self.is_closed() => Err(Stop::Closed),
            Err(_) => Ok(None),
        }
    }

    fn heard(&self, command: HopCommand) -> Result<HopCommand, Stop> {
        match command {
            _ if self.is_closed() => Err(Stop::Closed),
            HopCommand::HelperFailed(failure) => Err(Stop::Failed(failure)),
            other => Ok(other),
        }
    }

    /// Waits until the workload shall be told that all is well, which control says when all ends of the hop have reported.
    pub(super) fn completion(&mut self) -> Result<(), Stop> {
        match self.command(Instant::now() + COMPLETED_WITHIN)? {
            Some(HopCommand::Complete) => Ok(()),
            Some(_) => Err(out_of_turn().into()),
            None => {
                let message = "it was not known for a day whether all is well";
                Err(Failure::new(Reason::DeadlineExceeded, message).into())
            }
        }
    }

    /// Waits for the other side's metadata. What else comes first is kept.
    pub(super) fn connection(&mut self) -> Result<Peer, Stop> {
        let deadline = self.opened + Duration::from_secs(self.options.connect_seconds.max(1));
        loop {
            match self.new_command(deadline)? {
                Some(HopCommand::Connect(peer)) => return Ok(peer),
                Some(other) => self.early.push_back(other),
                None => {
                    let seconds = self.options.connect_seconds;
                    let message =
                        format!("the other side gave no metadata within {seconds} s; look at its agent");
                    return Err(Failure::new(Reason::DeadlineExceeded, message).into());
                }
            }
        }
    }
}

/// Control said something that does not come at this point of a hop.
pub(super) fn out_of_turn() -> Failure {
    Failure::new(Reason::WorkerLost, "the worker was told something out of turn; please report this")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptors(count: usize) -> Vec<OwnedFd> {
        (0..count).filter_map(|_| Some(std::fs::File::open("/dev/null").ok()?.into())).collect()
    }

    #[test]
    fn descriptors_are_dealt_in_order_and_counted() {
        let file = |index, compare| FileToWrite { index, compare, known: None, prefix: None, memory: false };
        let list = |count| Partial::list(vec![file(3, true), file(5, false)], descriptors(count));
        let dealt = list(3).expect("fits");
        assert_eq!(
            dealt.iter().map(|p| (p.facts.index, p.existing.is_some())).collect::<Vec<_>>(),
            [(3, true), (5, false)]
        );
        assert!(list(2).is_none());
        assert!(list(4).is_none());
    }
}
