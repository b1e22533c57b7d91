//! Connections with blocking sockets beneath an asynchronous control: a thread that writes what is queued, and for the
//! launcher a thread that starts it, hears it, and sees its end. Decides nothing.

pub mod launcher;

use std::{
    os::fd::{AsFd, OwnedFd},
    thread::JoinHandle,
    time::Duration,
};

use serde::Serialize;
use tokio::sync::mpsc;

use crate::protocol::channel::{Channel, ChannelError};

/// Messages that may wait for a process that does not read.
const QUEUE: usize = 64;

/// A process that takes nothing from its socket for this long is not served any more.
/// Longer than the pool's patience with a silent worker, which finds a hung one earlier.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);

/// What is written: a message and the descriptors beside it.
pub type Outgoing<M> = (M, Vec<OwnedFd>);

/// A thread that writes to one socket.
#[derive(Debug)]
pub struct Writer<M> {
    /// Where to queue. The thread ends when all senders are gone or the socket fails; then sending fails.
    pub queue: mpsc::Sender<Outgoing<M>>,
    /// The thread.
    pub thread: JoinHandle<()>,
}

impl<M: Serialize + Send + 'static> Writer<M> {
    /// Starts the thread. When a write fails the socket is shut down, so that its reader sees the end too.
    pub fn start(name: &str, channel: Channel) -> Result<Self, ChannelError> {
        channel.set_timeouts(Some(TAKEN_WITHIN), None)?;
        let (queue, mut messages) = mpsc::channel::<Outgoing<M>>(QUEUE);
        let who = name.to_owned();
        let write = move || {
            while let Some((message, descriptors)) = messages.blocking_recv() {
                let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                if let Err(error) = channel.send(&message, &borrowed) {
                    tracing::debug!(to = who, %error, "cannot write");
                    channel.shutdown();
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("writer".into()).spawn(write)?;
        Ok(Self { queue, thread })
    }
}
