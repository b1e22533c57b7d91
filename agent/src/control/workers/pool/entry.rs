//! One worker as the pool sees it: its state, its patience, and how its end is put into words. No I/O but its queue.

use std::{
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::super::{
    WorkerEvent,
    link::{Heard, Link},
};
use crate::{
    control::connection::Outgoing,
    protocol::{ToWorker, channel::Channel},
};

/// A worker that answers no heartbeat for so long hangs.
const SILENT_AT_MOST: Duration = Duration::from_secs(10);
/// One that loads NIXL may take longer: it reads tens of megabytes of libraries, and has one thread for all.
const START_WITHIN: Duration = Duration::from_secs(60);
/// An owner that does not read for so long is stuck, and its worker with it.
const DELIVERED_WITHIN: Duration = Duration::from_secs(300);
/// A killed worker must be reaped within this time, else the launcher itself hangs.
const REAPED_WITHIN: Duration = Duration::from_secs(20);

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Starting,
    Warm,
    Taken,
    Ending,
}

impl State {
    /// All states with their names in metrics.
    pub(super) const ALL: [(State, &'static str); 4] = [
        (State::Starting, "starting"),
        (State::Warm, "warm"),
        (State::Taken, "taken"),
        (State::Ending, "ending"),
    ];
}

/// What a look at a worker says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Well,
    Hung(String),
    /// It was killed and is still there.
    NotEnding,
}

pub(super) struct Entry {
    pub(super) state: State,
    pub(super) heard: Arc<Heard>,
    since: Instant,
    queue: mpsc::Sender<Outgoing<ToWorker>>,
    events: Option<mpsc::Receiver<WorkerEvent>>,
    proof: oneshot::Sender<String>,
    socket: Channel,
    why: Option<Why>,
    /// Whether it has said that NIXL is usable.
    pub(super) loaded: bool,
}

/// Why a worker shall end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its owner is done with it.
    Asked,
    /// Its socket has ended.
    Closed,
    /// It did what it must not, or hangs.
    Fault(String),
}

impl Entry {
    pub(super) fn new(link: Link) -> (Self, [JoinHandle<()>; 2]) {
        let Link { queue, heard, events, proof, socket, threads } = link;
        let entry = Self {
            state: State::Starting,
            heard,
            since: Instant::now(),
            queue,
            events: Some(events),
            proof,
            socket,
            why: None,
            loaded: false,
        };
        (entry, threads)
    }

    /// Whether it is, or will be, free to be taken.
    pub(super) fn is_coming(&self) -> bool {
        matches!(self.state, State::Starting | State::Warm)
    }

    /// Gives it to an owner.
    pub(super) fn take(&mut self) -> Option<(mpsc::Receiver<WorkerEvent>, mpsc::Sender<Outgoing<ToWorker>>)> {
        let events = self.events.take()?;
        self.state = State::Taken;
        self.since = Instant::now();
        Some((events, self.queue.clone()))
    }

    /// Notes that it shall end; false when that was known.
    pub(super) fn ending(&mut self, why: Why) -> bool {
        if self.state == State::Ending {
            return false;
        }
        self.why = Some(why);
        self.state = State::Ending;
        self.since = Instant::now();
        true
    }

    /// How its end counts, if nobody has asked for it.
    pub(super) fn lost(&self) -> Option<&'static str> {
        match self.why {
            Some(Why::Fault(_)) => Some("fault"),
            Some(Why::Asked) => None,
            Some(Why::Closed) | None => Some("exited"),
        }
    }

    /// Lets the owner be told; gives the words. `reaped` is false when only the end of the socket proves it.
    pub(super) fn gone(self, status: &str, reaped: bool) -> String {
        let words = match self.why {
            Some(Why::Fault(fault)) => format!("{fault} ({status})"),
            Some(Why::Asked | Why::Closed) | None => status.to_owned(),
        };
        // The reader is the only one who waits for it, and may be gone with the agent.
        let _ = self.proof.send(words.clone());
        if reaped {
            // Nothing more can come; what was said before is still read.
            self.socket.shutdown();
        }
        words
    }

    pub(super) fn verdict(&self) -> Verdict {
        let (silence, undelivered) = self.heard.silence();
        verdict(self.state, self.since.elapsed(), silence, undelivered)
    }

    /// A full queue means a worker that reads nothing; its silence will tell.
    pub(super) fn ping(&self, sequence: u64) {
        let _ = self.queue.try_send((ToWorker::Ping { sequence }, Vec::new()));
    }
}

fn verdict(state: State, in_state: Duration, silence: Duration, undelivered: bool) -> Verdict {
    let seconds = silence.as_secs();
    match state {
        State::Ending if in_state > REAPED_WITHIN => Verdict::NotEnding,
        State::Ending => Verdict::Well,
        State::Starting if in_state > START_WITHIN => {
            Verdict::Hung(format!("it had not loaded NIXL after {} s and was ended", in_state.as_secs()))
        }
        State::Starting => Verdict::Well,
        _ if undelivered && silence > DELIVERED_WITHIN => {
            Verdict::Hung(format!("its hop took nothing from it for {seconds} s and it was ended"))
        }
        _ if !undelivered && silence > SILENT_AT_MOST => {
            Verdict::Hung(format!("it did not answer for {seconds} s and was ended"))
        }
        _ => Verdict::Well,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hung_is_who_is_silent_by_itself_and_too_long_for_its_state() {
        let s = Duration::from_secs;
        let hung = |state, in_state, silence, undelivered| {
            matches!(verdict(state, s(in_state), s(silence), undelivered), Verdict::Hung(_))
        };
        assert!(!hung(State::Taken, 900, 10, false));
        assert!(hung(State::Taken, 900, 11, false));
        assert!(hung(State::Warm, 900, 11, false));
        assert!(!hung(State::Taken, 900, 200, true), "its owner is slow");
        assert!(hung(State::Taken, 900, 301, true));
        assert!(!hung(State::Starting, 30, 30, false), "loading takes one thread");
        assert!(hung(State::Starting, 61, 61, false));
        assert!(!hung(State::Ending, 20, 900, false));
        assert_eq!(verdict(State::Ending, s(21), s(21), false), Verdict::NotEnding);
    }
}
