//! Messages with descriptors over a Unix stream socket: a header of eight bytes (length of the body, number of
//! descriptors), then JSON. Blocking, with a deadline; used by control, launcher and workers alike.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};

use super::MAX_DESCRIPTORS;

/// Bytes that one message's body may have; larger ones are refused on both ends.
const MAX_BODY: usize = 4 << 20;
const HEADER: usize = 8;

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other end is gone.
    #[error("the other end has closed the socket")]
    Closed,
    /// Nothing came, or nothing was taken, in time.
    #[error("timed out")]
    TimedOut,
    /// A message that breaks the protocol.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// The socket failed.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for ChannelError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ChannelError::TimedOut,
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
                ChannelError::Closed
            }
            _ => ChannelError::Io(error),
        }
    }
}

impl From<rustix::io::Errno> for ChannelError {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// One end of a socket. Clone it with `try_clone` to send and receive from two threads; each direction has one user.
#[derive(Debug)]
pub struct Channel(UnixStream);

impl Channel {
    /// Two connected ends, both closed on exec.
    pub fn pair() -> Result<(Channel, Channel), ChannelError> {
        let (one, other) = UnixStream::pair()?;
        Ok((Channel(one), Channel(other)))
    }

    /// Wraps a connected socket.
    pub fn new(socket: UnixStream) -> Self {
        Self(socket)
    }

    /// A second handle to the same end.
    pub fn try_clone(&self) -> Result<Self, ChannelError> {
        Ok(Self(self.0.try_clone()?))
    }

    /// The descriptor, to hand it to another process.
    pub fn into_fd(self) -> OwnedFd {
        self.0.into()
    }

    /// How long a send may wait for room and a receive for the next byte; `None` waits for ever, which only the
    /// receiving loop of a worker's control may do, since the kernel tells it when the other end is gone.
    pub fn set_timeouts(
        &self,
        send: Option<Duration>,
        receive: Option<Duration>,
    ) -> Result<(), ChannelError> {
        self.0.set_write_timeout(send)?;
        self.0.set_read_timeout(receive)?;
        Ok(())
    }

    /// Wakes and fails everyone who uses this end.
    pub fn shutdown(&self) {
        // The other end may be gone already; then there is nothing to wake.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }

    /// Sends one message with its descriptors.
    pub fn send<M: Serialize>(
        &self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        let body = serde_json::to_vec(message).map_err(|error| ChannelError::Malformed(error.to_string()))?;
        if body.len() > MAX_BODY || descriptors.len() > MAX_DESCRIPTORS {
            return Err(ChannelError::Malformed(format!(
                "{} bytes and {} descriptors are more than a message may have",
                body.len(),
                descriptors.len()
            )));
        }
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(descriptors.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&body);

        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(ChannelError::Malformed("too many descriptors".into()));
        }
        // Descriptors travel with the first byte; the rest of the message is plain.
        // A process that was stopped and goes on finds its timed calls interrupted, with nothing sent.
        let mut sent = retry_on_intr(|| {
            sendmsg(&self.0, &[io::IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)
        })?;
        while sent < bytes.len() {
            let mut none = SendAncillaryBuffer::default();
            let rest = [io::IoSlice::new(&bytes[sent..])];
            sent += retry_on_intr(|| sendmsg(&self.0, &rest, &mut none, SendFlags::NOSIGNAL))?;
        }
        Ok(())
    }

    /// Receives one message with its descriptors. A timeout before the first byte loses nothing.
    pub fn receive<M: DeserializeOwned>(&self) -> Result<(M, Vec<OwnedFd>), ChannelError> {
        let mut descriptors = Vec::new();
        let mut header = [0; HEADER];
        self.fill(&mut header, &mut descriptors)?;
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let announced = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if length > MAX_BODY || announced > MAX_DESCRIPTORS {
            return Err(ChannelError::Malformed(format!(
                "announces {length} bytes and {announced} descriptors"
            )));
        }
        let mut body = vec![0; length];
        self.fill(&mut body, &mut descriptors)?;
        if descriptors.len() != announced {
            return Err(ChannelError::Malformed(format!(
                "announces {announced} descriptors and carries {}",
                descriptors.len()
            )));
        }
        let message =
            serde_json::from_slice(&body).map_err(|error| ChannelError::Malformed(error.to_string()))?;
        Ok((message, descriptors))
    }

    fn fill(&self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> Result<(), ChannelError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let mut space =
                [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let received = match recvmsg(
                self.0.as_fd(),
                &mut [io::IoSliceMut::new(&mut buffer[filled..])],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    descriptors.extend(fds);
                }
            }
            if received.flags.contains(ReturnFlags::CTRUNC) {
                return Err(ChannelError::Malformed(
                    "descriptors were lost: the limit of open files is reached".into(),
                ));
            }
            if received.bytes == 0 {
                return Err(ChannelError::Closed);
            }
            filled += received.bytes;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{FileToRead, HopId, ToWorker};
    use std::io::Read;

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (one, other) = Channel::pair().unwrap();
        let file = std::fs::File::open("/proc/self/status").unwrap();
        let message = ToWorker::Files {
            hop: HopId(7),
            files: vec![FileToRead { index: 3, known: None, memory: false }],
        };
        one.send(&message, &[file.as_fd()]).unwrap();
        one.send(&ToWorker::Ping { sequence: 1 }, &[]).unwrap();
        let (got, mut fds) = other.receive::<ToWorker>().unwrap();
        assert!(matches!(got, ToWorker::Files { hop: HopId(7), .. }));
        let mut text = String::new();
        std::fs::File::from(fds.remove(0)).read_to_string(&mut text).unwrap();
        assert!(text.starts_with("Name:"));
        let (next, fds) = other.receive::<ToWorker>().unwrap();
        assert!(matches!(next, ToWorker::Ping { sequence: 1 }) && fds.is_empty());
    }

    #[test]
    fn a_large_message_survives_partial_writes() {
        let (one, other) = Channel::pair().unwrap();
        let metadata = "x".repeat(1 << 20);
        let worker = crate::protocol::WorkerName("w".into());
        let sender = std::thread::spawn(move || {
            one.send(&ToWorker::Connect { hop: HopId(1), metadata, worker }, &[]).unwrap();
        });
        let (got, _) = other.receive::<ToWorker>().unwrap();
        assert!(matches!(got, ToWorker::Connect { metadata, .. } if metadata.len() == 1 << 20));
        sender.join().unwrap();
    }

    #[test]
    fn a_closed_or_silent_or_absurd_other_end_is_an_error() {
        let (one, other) = Channel::pair().unwrap();
        other.set_timeouts(None, Some(Duration::from_millis(10))).unwrap();
        assert!(matches!(other.receive::<ToWorker>(), Err(ChannelError::TimedOut)));
        rustix::io::write(&one.0, &[255; 8]).unwrap();
        assert!(matches!(other.receive::<ToWorker>(), Err(ChannelError::Malformed(_))));
        drop(one);
        assert!(matches!(other.receive::<ToWorker>(), Err(ChannelError::Closed)));
    }
}
