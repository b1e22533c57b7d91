//! Messages on a Unix stream socket: their lengths, and the descriptors that come with them. For blocking sockets and for
//! others; nothing here waits by itself.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};

/// Longest body of a message.
pub const MAX_BODY: usize = 64 << 10;
/// Bytes of the length.
const HEADER: usize = 4;

/// Bytes that are no message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A length beyond the bound.
    #[error("a message of {0} bytes is longer than {MAX_BODY}")]
    TooLong(usize),
    /// The body is not what is expected.
    #[error("a message that is none: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// A message with its length before it.
///
/// # Errors
/// When it is longer than [`MAX_BODY`].
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let body = serde_json::to_vec(message)?;
    if body.len() > MAX_BODY {
        return Err(FrameError::TooLong(body.len()));
    }
    let mut bytes = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    bytes.extend(body);
    Ok(bytes)
}

/// Puts together what comes in pieces.
#[derive(Debug, Default)]
pub struct Decoder(Vec<u8>);

impl Decoder {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// How many bytes the message under way still needs, as far as can be told yet. Whoever receives no more than that at a
    /// time never takes a descriptor for another message's.
    pub fn wants(&self) -> usize {
        let whole = HEADER + self.length().unwrap_or(0);
        whole.saturating_sub(self.0.len())
    }

    /// What the header says, once it is there.
    fn length(&self) -> Option<usize> {
        self.0.first_chunk::<HEADER>().map(|header| u32::from_be_bytes(*header) as usize)
    }

    /// The next message, if it is whole.
    ///
    /// # Errors
    /// When it is too long, or none.
    pub fn take<M: DeserializeOwned>(&mut self) -> Result<Option<M>, FrameError> {
        let Some(length) = self.length() else { return Ok(None) };
        if length > MAX_BODY {
            return Err(FrameError::TooLong(length));
        }
        let Some(body) = self.0.get(HEADER..HEADER + length) else { return Ok(None) };
        let message = serde_json::from_slice(body)?;
        self.0.drain(..HEADER + length);
        Ok(Some(message))
    }
}

/// Receives some bytes, and the descriptors that come with them; 0 when the other end is closed. Descriptors that came
/// before an error are there too.
///
/// # Errors
/// As `recvmsg`, and when more descriptors came than are taken.
pub fn receive(socket: impl AsFd, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(socket, &mut [io::IoSliceMut::new(buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more descriptors than can be taken"));
    }
    Ok(received.bytes)
}

/// Sends some bytes, the descriptor with the first of them; how many were sent.
///
/// # Errors
/// As `sendmsg`.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.as_slice();
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    Ok(sendmsg(socket, &[io::IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ToAgent;

    #[test]
    fn messages_come_out_whole_however_they_are_cut() {
        let messages = [
            ToAgent::Hello { version: 1, token: "t".repeat(300) },
            ToAgent::Withdraw { region: "kv".into() },
        ];
        let bytes: Vec<u8> = messages.iter().flat_map(|message| encode(message).unwrap()).collect();
        for piece in [1, 3, 64, bytes.len()] {
            let (mut decoder, mut found) = (Decoder::default(), Vec::new());
            for chunk in bytes.chunks(piece) {
                decoder.push(chunk);
                while let Some(message) = decoder.take::<ToAgent>().unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, messages);
            assert_eq!(decoder.wants(), HEADER, "of the next one");
        }
    }

    #[test]
    fn it_wants_no_byte_of_the_next_message() {
        let bytes = encode(&ToAgent::Withdraw { region: "kv".into() }).unwrap();
        let (mut decoder, mut rest, mut pieces) = (Decoder::default(), [bytes.as_slice(); 2].concat(), 0);
        while decoder.take::<ToAgent>().unwrap().is_none() {
            let next = rest.split_off(decoder.wants().min(7));
            decoder.push(&std::mem::replace(&mut rest, next));
            pieces += 1;
        }
        assert!(rest == bytes && pieces > 2);
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let next = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            decoder.take::<ToAgent>()
        };
        assert!(matches!(next(&[0xff; 4]), Err(FrameError::TooLong(_))));
        assert!(matches!(next(b"\0\0\0\x02{]"), Err(FrameError::Malformed(_))));
        assert!(matches!(next(b"\0\0\0\x02{}"), Err(FrameError::Malformed(_))));
        assert!(next(b"\0\0\0\x02{").unwrap().is_none());
    }
}
