//! A workload that keeps to no rule: says what it likes on the agent's socket, with as many descriptors as it likes.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{fd::BorrowedFd, unix::net::UnixStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nixl_transfer_client::{Decoder, receive};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

/// How long an answer may take: longer than anything that the agent waits for.
const HEARD_WITHIN: Duration = Duration::from_secs(45);

/// A connection.
pub struct RawClient {
    socket: UnixStream,
    decoder: Decoder,
}

impl RawClient {
    /// Connects, and says nothing.
    pub fn connect(path: &Path) -> Result<Self> {
        let socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(HEARD_WITHIN))?;
        socket.set_write_timeout(Some(HEARD_WITHIN))?;
        Ok(Self { socket, decoder: Decoder::default() })
    }

    /// Connects and says who it is.
    pub fn hello(path: &Path, token: &str) -> Result<Self> {
        let mut client = Self::connect(path)?;
        client.say(&json!({"type": "hello", "version": 1, "token": token}), &[])?;
        let answer = client.hear()?.context("a welcome")?;
        ensure!(answer["type"] == "welcome", "{answer}");
        Ok(client)
    }

    /// Says something, with descriptors.
    pub fn say(&mut self, message: &Value, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        let body = message.to_string();
        let mut bytes = u32::try_from(body.len())?.to_be_bytes().to_vec();
        bytes.extend(body.as_bytes());
        Ok(self.send(&bytes, descriptors)?)
    }

    /// Sends bytes as they are, the descriptors with the first.
    pub fn send(&mut self, mut bytes: &[u8], mut descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            let sent = sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
            (bytes, descriptors) = (bytes.get(sent..).unwrap_or_default(), &[]);
        }
        Ok(())
    }

    /// What the agent says next; `None` when it has closed the connection.
    pub fn hear(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(message) = self.decoder.take()? {
                return Ok(Some(message));
            }
            let mut buffer = [0; 4096];
            match receive(&self.socket, &mut buffer, &mut Vec::new()) {
                Ok(0) => return Ok(None),
                Ok(length) => self.decoder.push(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error).context("waiting for the agent"),
            }
        }
    }

    /// The reason of the refusal that comes next.
    pub fn refused(&mut self) -> Result<String> {
        let answer = self.hear()?.context("closed without a word")?;
        ensure!(answer["type"] == "refused", "{answer}");
        let message = answer["message"].as_str().unwrap_or_default();
        ensure!((10..1500).contains(&message.len()), "a message says what to do: {answer}");
        Ok(answer["reason"].as_str().unwrap_or_default().to_owned())
    }
}
