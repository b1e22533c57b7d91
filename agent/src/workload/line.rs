//! One connection's bytes: messages in, messages out, each with a deadline. A message that has begun must end soon, and one
//! that is sent must be taken soon.

use std::{io, os::fd::OwnedFd, time::Duration};

use nixl_transfer_client::{
    Decoder, encode, receive, send,
    wire::{FromAgent, ToAgent},
};
use tokio::{
    io::Interest,
    net::UnixStream,
    time::{Instant, timeout, timeout_at},
};

use super::Refusal;

/// How long the rest of a message may take, and how long one that is sent may lie.
const SOON: Duration = Duration::from_secs(5);

/// A connection.
pub(super) struct Line {
    socket: UnixStream,
    decoder: Decoder,
    descriptors: Vec<OwnedFd>,
    /// Until when the message that has begun must be whole.
    whole_by: Option<Instant>,
}

impl Line {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self { socket, decoder: Decoder::default(), descriptors: Vec::new(), whole_by: None }
    }

    /// The next message, with the descriptor that came with it; `None` when the other end is closed. Nothing is lost when
    /// the wait is given up.
    ///
    /// # Errors
    /// When it breaks the protocol.
    pub(super) async fn next(&mut self) -> Result<Option<(ToAgent, Option<OwnedFd>)>, Refusal> {
        let broken =
            |what: String| Refusal::new("ProtocolError", format!("{what}; see docs/workload-memory.md"));
        loop {
            match self.decoder.take() {
                Ok(Some(message)) => {
                    self.whole_by = self.decoder.is_amid().then(|| Instant::now() + SOON);
                    return match self.descriptors.len() {
                        0 | 1 => Ok(Some((message, self.descriptors.pop()))),
                        more => Err(broken(format!("{more} descriptors came with one message"))),
                    };
                }
                Ok(None) => {}
                Err(error) => return Err(broken(error.to_string())),
            }
            let Self { socket, descriptors, .. } = self;
            let mut buffer = [0; 4096];
            let come = async {
                loop {
                    socket.readable().await?;
                    match socket.try_io(Interest::READABLE, || receive(&*socket, &mut buffer, descriptors)) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        other => return other,
                    }
                }
            };
            let come = match self.whole_by {
                Some(by) => timeout_at(by, come)
                    .await
                    .map_err(|_| broken("a message was begun and not finished".into()))?,
                None => come.await,
            };
            match come {
                Ok(0) => return Ok(None),
                Ok(length) => {
                    self.decoder.push(&buffer[..length]);
                    self.whole_by.get_or_insert_with(|| Instant::now() + SOON);
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(broken(error.to_string()));
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Sends a message. False when it was not taken in time, or cannot be.
    pub(super) async fn say(&self, message: &FromAgent) -> bool {
        let Ok(bytes) = encode(message) else { return false };
        let mut rest = bytes.as_slice();
        let all = async {
            while !rest.is_empty() {
                self.socket.writable().await?;
                match self.socket.try_io(Interest::WRITABLE, || send(&self.socket, rest, None)) {
                    Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        matches!(timeout(SOON, all).await, Ok(Ok(())))
    }
}
