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

use super::{Refusal, apart::Apart};
use crate::volume::path::shortened;

/// How long the rest of a message may take, and how long one that is sent may lie.
const SOON: Duration = Duration::from_secs(5);

/// A connection.
pub(super) struct Line {
    ends: Apart<Ends>,
    decoder: Decoder,
    /// Until when the message that has begun must be whole.
    whole_by: Option<Instant>,
}

/// What is closed with a connection.
struct Ends {
    socket: UnixStream,
    descriptors: Vec<OwnedFd>,
    /// Dropped last: it counts until all is closed.
    counted: Vec<Box<dyn Send + Sync>>,
}

impl Line {
    /// `counted` is dropped when the connection is closed, which may be some time after this is dropped.
    pub(super) fn new(socket: UnixStream, counted: impl Send + Sync + 'static) -> Self {
        let ends = Ends { socket, descriptors: Vec::new(), counted: vec![Box::new(counted)] };
        Self { ends: Apart::new(ends), decoder: Decoder::default(), whole_by: None }
    }

    /// This too is dropped when the connection is closed.
    pub(super) fn counts_as(&mut self, counted: impl Send + Sync + 'static) {
        if let Some(ends) = self.ends.get_mut() {
            ends.counted.push(Box::new(counted));
        }
    }

    /// The next message, with the descriptor that came with it; `None` when the other end is closed. Nothing is lost when
    /// the wait is given up.
    ///
    /// # Errors
    /// When it breaks the protocol.
    pub(super) async fn next(&mut self) -> Result<Option<(ToAgent, Option<Apart<OwnedFd>>)>, Refusal> {
        let broken = |what: &str| {
            Refusal::new("ProtocolError", format!("{}; see docs/workload-memory.md", shortened(what)))
        };
        let Some(Ends { socket, descriptors, .. }) = self.ends.get_mut() else { return Ok(None) };
        loop {
            if let Some(message) = self.decoder.take().map_err(|error| broken(&error.to_string()))? {
                self.whole_by = None;
                let descriptor = descriptors.pop().map(Apart::new);
                return match (&message, &descriptor) {
                    (ToAgent::Hello { .. } | ToAgent::Withdraw { .. }, Some(_)) => {
                        Err(broken("a descriptor came with a message other than `offer`"))
                    }
                    _ => Ok(Some((message, descriptor))),
                };
            }
            let mut buffer = [0; 4096];
            let room = self.decoder.wants().min(buffer.len());
            let come = async {
                loop {
                    socket.readable().await?;
                    let come = || receive(&*socket, buffer.get_mut(..room).unwrap_or_default(), descriptors);
                    match socket.try_io(Interest::READABLE, come) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        other => return other,
                    }
                }
            };
            let come = match self.whole_by {
                Some(by) => {
                    timeout_at(by, come).await.map_err(|_| broken("a message was begun and not finished"))?
                }
                None => come.await,
            };
            if descriptors.len() > 1 {
                return Err(broken("more than one descriptor came with a message"));
            }
            match come {
                Ok(0) => return Ok(None),
                Ok(length) => {
                    self.decoder.push(buffer.get(..length).unwrap_or_default());
                    self.whole_by.get_or_insert_with(|| Instant::now() + SOON);
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(broken(&error.to_string()));
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Sends a message. False when it was not taken in time, or cannot be.
    pub(super) async fn say(&self, message: &FromAgent) -> bool {
        let (Ok(bytes), Some(Ends { socket, .. })) = (encode(message), self.ends.get()) else { return false };
        let mut rest = bytes.as_slice();
        let all = async {
            while !rest.is_empty() {
                socket.writable().await?;
                match socket.try_io(Interest::WRITABLE, || send(socket, rest, None)) {
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

#[cfg(test)]
mod tests;
