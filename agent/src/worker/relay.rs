//! A relay: sends on what the target's hop of the same worker receives, from the slots it came in. It is a hop of its own,
//! with a task of its own; when it fails, the receiving one goes on without it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nixl_connect::{AbortHandle, AnswerReceiver, Chunk, Progress, Receiver, Sender, StreamError};
use nixl_transfer_crds::Reason;

use super::failures;
use super::hop::{Seat, Stop};
use super::progress::Pace;
use super::signs::Patience;
use super::source;
use crate::protocol::{Counters, Failure, FromWorker};

/// What the receiving hop hands to the relay when its ring is there.
pub(super) struct Ring {
    sender: Sender,
    items: mpsc::Receiver<Item>,
    content: Arc<AtomicU64>,
    connected: mpsc::SyncSender<(AnswerReceiver, Duration)>,
    /// Dropped when the relay is over.
    over: mpsc::Sender<()>,
}

/// The receiving hop has a deadline for its source; this is what it may take beyond that.
const CONNECT_GRACE: Duration = Duration::from_secs(5);
/// How often the end of a relay is looked for.
const LOOK: Duration = Duration::from_secs(1);

enum Item {
    Chunk(Arc<Chunk>),
    /// There are no more, and all were good.
    End,
}

/// The receiving hop's end of a relay that may come.
pub(super) struct Onward {
    rings: mpsc::Sender<Ring>,
}

/// The relay's end.
pub(super) type RingComes = mpsc::Receiver<Ring>;

/// The receiving hop's end of a relay that is connected.
pub(super) struct Forwarding {
    items: mpsc::Sender<Item>,
    content: Arc<AtomicU64>,
    over: mpsc::Receiver<()>,
    answers: AnswerReceiver,
    patience: Duration,
    progress: Arc<Progress>,
    abort: AbortHandle,
}

/// Both ends of a relay.
pub(super) fn pair() -> (Onward, RingComes) {
    let (rings, comes) = mpsc::channel();
    (Onward { rings }, comes)
}

impl Onward {
    /// Waits until the relay is connected, or given up: `None`.
    pub(super) fn begin(self, receiver: &Receiver, longest: Duration) -> Option<Forwarding> {
        let sender = Sender::open_relay(receiver);
        let (abort, progress) = (sender.abort_handle(), sender.progress());
        let (items, to_send) = mpsc::channel();
        let (connected, connects) = mpsc::sync_channel(1);
        let (over_sender, over) = mpsc::channel();
        let content = Arc::new(AtomicU64::new(0));
        let ring =
            Ring { sender, items: to_send, content: Arc::clone(&content), connected, over: over_sender };
        self.rings.send(ring).ok()?;
        let (answers, patience) = connects.recv_timeout(longest).ok()?;
        Some(Forwarding { items, content, over, answers, patience, progress, abort })
    }
}

impl Forwarding {
    /// Takes a chunk to send on; false when the relay is over. Chunks that wait are bounded by the ring.
    pub(super) fn forward(&self, chunk: &Arc<Chunk>) -> bool {
        self.items.send(Item::Chunk(Arc::clone(chunk))).is_ok()
    }

    /// So many bytes of content were in what was handed over.
    pub(super) fn count(&self, bytes: u64) {
        self.content.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What the next node has.
    pub(super) fn answers(&self) -> AnswerReceiver {
        self.answers.clone()
    }

    /// How long the next node may stand still.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Ends it from another thread.
    pub(super) fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }

    /// Everything was handed over, whole: waits until the relay is done with it, well or not. It has its own patience,
    /// and is ended when it outlives that. `look` is called about once a second.
    pub(super) fn finish(self, grace: Duration, mut look: impl FnMut()) {
        // A relay that has failed hears nothing more.
        let _ = self.items.send(Item::End);
        let through = || self.progress.snapshot().chunks;
        let mut patience = Patience::new(self.patience + grace, through(), Instant::now());
        // Nothing is ever sent: this ends when the relay does.
        while self.over.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
            look();
            if patience.is_over(through(), Instant::now()) {
                tracing::warn!("a relay outlives its own deadline");
                return self.abort.abort();
            }
        }
    }
}

/// The body of a relay's thread.
pub(super) fn run(mut seat: Seat, comes: &RingComes) -> Result<(), Stop> {
    seat.outbox.send(&FromWorker::Prepared { hop: seat.id, metadata: seat.agent.metadata.clone() });
    let (target, patience) = source::next_peer(&mut seat)?;
    // It is there when the receiving hop is connected to its own source, which may still be busy with its files.
    let connect = Duration::from_secs(seat.options.connect_seconds.max(1)) + CONNECT_GRACE;
    let Ok(Ring { mut sender, items, content, connected, over }) = comes.recv_timeout(connect) else {
        return Err(ended_before().into());
    };
    seat.arm(sender.abort_handle());
    sender.connect(&target).map_err(|error| failures::connecting(&error))?;
    // The receiving hop may have ended meanwhile, which the items tell.
    let _ = connected.send((sender.answers(), patience));
    let counters = || Counters { bytes: content.load(Ordering::Relaxed), ..Counters::default() };
    let mut pace = Pace::new(Instant::now());
    let failed = |seat: &Seat, error: StreamError| match error {
        StreamError::Closed if seat.is_closed() => Stop::Closed,
        error => Stop::Failed(failures::stream(&error, patience)),
    };
    // The receiving hop owns the other end and waits with deadlines; with its end this wait ends.
    while let Item::Chunk(chunk) = items.recv().map_err(|_| ended_before())? {
        source::patiently(&mut sender, patience, |sender, deadline| sender.forward(&chunk, deadline))
            .map_err(|error| failed(&seat, error))?;
        drop(chunk);
        let counters = Counters { resent: sender.progress().snapshot().resent, ..counters() };
        if pace.is_due(counters, Instant::now()) {
            seat.outbox.send(&FromWorker::Progress { hop: seat.id, counters });
        }
    }
    source::finish(&mut sender, patience).map_err(|error| failed(&seat, error))?;
    let counters = Counters { resent: sender.progress().snapshot().resent, ..counters() };
    seat.outbox.send(&FromWorker::Sent { hop: seat.id, counters });
    drop(over);
    Ok(())
}

fn ended_before() -> Failure {
    Failure::new(Reason::PeerLost, "this node's own copy failed before it was sent on; its task says why")
}
