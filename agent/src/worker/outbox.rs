//! The way from every thread of a worker to control: one message at a time. A control that takes none is gone, and so
//! is the worker then.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use crate::protocol::FromWorker;
use crate::protocol::channel::Channel;

/// Sends to control; clones share one socket.
#[derive(Clone, Debug)]
pub(super) struct Outbox(Arc<Mutex<Channel>>);

impl Outbox {
    pub(super) fn new(channel: Channel) -> Self {
        Self(Arc::new(Mutex::new(channel)))
    }

    /// Sends, or ends the process: without control there is nobody to work for.
    pub(super) fn send(&self, message: &FromWorker) {
        self.send_all(message, &[]);
    }

    /// The same, with a descriptor.
    pub(super) fn send_with(&self, message: &FromWorker, descriptor: BorrowedFd<'_>) {
        self.send_all(message, &[descriptor]);
    }

    fn send_all(&self, message: &FromWorker, descriptors: &[BorrowedFd<'_>]) {
        let sent = self.0.lock().unwrap_or_else(PoisonError::into_inner).send(message, descriptors);
        if let Err(error) = sent {
            tracing::error!(%error, "control takes no message; the worker ends");
            nixl_connect::exit_now(4);
        }
    }
}
