//! The plans that are being carried out: a few more than there are writers, so that these never lack work; the others wait
//! in order. What waits is only what is to be written; under way a write-out takes many times that.

use std::collections::VecDeque;

use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};

use super::Message;
use crate::{
    apply::{self, Work, writer::Writer},
    events::Events,
};

/// For each writer: one that writes, one that publishes its events.
const PER_WRITER: usize = 2;

/// Write-outs under way and waiting.
pub struct WriteOuts {
    under_way: JoinSet<()>,
    waiting: VecDeque<(Work, Vec<String>)>,
    at_once: usize,
    writer: Writer,
    events: Events,
    sender: mpsc::Sender<Message>,
}

impl WriteOuts {
    /// None yet, for so many writers.
    pub fn new(writer: Writer, writers: usize, events: Events, sender: mpsc::Sender<Message>) -> Self {
        let at_once = PER_WRITER * writers.max(1);
        Self { under_way: JoinSet::new(), waiting: VecDeque::new(), at_once, writer, events, sender }
    }

    /// Carries the work out in its turn; slots are reserved on these nodes until then.
    pub fn push(&mut self, work: Work, reserved: Vec<String>) {
        self.waiting.push_back((work, reserved));
        self.start();
    }

    fn start(&mut self) {
        while self.under_way.len() < self.at_once
            && let Some((work, reserved)) = self.waiting.pop_front()
        {
            let (writer, events, sender) = (self.writer.clone(), self.events.clone(), self.sender.clone());
            self.under_way.spawn(apply::apply(work, writer, events, sender, reserved));
        }
    }

    /// Starts none of those that wait any more.
    pub fn stop(&mut self) {
        self.waiting.clear();
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Returns when one has ended, and starts the next. An error means that one ended unexpectedly. Nothing is lost when
    /// it is not awaited to the end; not to be called when none is under way.
    pub async fn ended(&mut self) -> Result<(), JoinError> {
        let ended = self.under_way.join_next().await;
        self.start();
        ended.unwrap_or(Ok(()))
    }
}
