//! The client: says who the pod is, hands memory over, hears of transfers. Blocking, every wait with a deadline.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create},
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use crate::{
    framing::{Decoder, FrameError, encode, receive, send},
    wire::{FromAgent, Ipc, ToAgent, VERSION},
};

/// Between two offers of a region that is not there yet.
const OFFER_AGAIN: Duration = Duration::from_millis(500);
/// What the agent says of a region that nobody has made yet.
const NOT_YET: &str = "RegionNotFound";

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket failed.
    #[error("the agent's socket: {0}")]
    Io(#[from] io::Error),
    /// What came is no message.
    #[error("the agent's socket: {0}")]
    Frame(#[from] FrameError),
    /// The agent said no.
    #[error("{reason}: {message}")]
    Refused {
        /// One word.
        reason: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// Nothing came in time.
    #[error("the agent said nothing in time")]
    TimedOut,
    /// The agent has closed the connection.
    #[error("the agent has closed the connection")]
    Closed,
    /// The agent said something that does not come here.
    #[error("the agent answered something else")]
    OutOfTurn,
}

/// Something that the agent says by itself.
pub use crate::wire::FromAgent as Event;

/// A connection to the agent. When it is dropped the agent lets go of all memory. After an error other than `Refused`, and
/// other than `TimedOut` from [`Workload::next`], it is of no more use: an answer may be under way that nobody waits for.
#[derive(Debug)]
pub struct Workload {
    socket: UnixStream,
    decoder: Decoder,
    /// What came while an answer was waited for.
    events: VecDeque<Event>,
}

/// Memory that can be handed over: of that length for good, allocated whole, zeroed. Read and write it as a file, or map it.
///
/// # Errors
/// As the kernel says.
pub fn shared_memory(bytes: u64) -> io::Result<File> {
    let file = memfd_create("nixl-transfer", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, bytes)?;
    fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file.into())
}

/// How memory of a GPU is shared.
#[derive(Clone, Debug)]
pub enum GpuMemory<'a> {
    /// By what `cuMemExportToShareableHandle` gives: the memory stays as long as somebody has it.
    Descriptor(BorrowedFd<'a>),
    /// By a CUDA IPC handle, of memory that was made with `cudaMalloc`.
    Handle(Ipc),
}

impl Workload {
    /// Connects to the agent and says who the pod is.
    ///
    /// # Errors
    /// `Refused` when the token is not good, and what the socket says.
    pub fn connect(socket: &Path, token: &str, within: Duration) -> Result<Self, ClientError> {
        let deadline = Instant::now() + within;
        let socket = open(socket, left(deadline)?)?;
        let mut this = Self { socket, decoder: Decoder::default(), events: VecDeque::new() };
        this.say(&ToAgent::Hello { version: VERSION, token: token.trim().to_owned() }, None, deadline)?;
        match this.answer(deadline)? {
            FromAgent::Welcome { .. } => Ok(this),
            _ => Err(ClientError::OutOfTurn),
        }
    }

    /// Hands memory of that length over as the region of that name. Waits for the MemoryRegion if it is not there yet.
    ///
    /// # Errors
    /// `Refused` with what is wrong, and what the socket says.
    pub fn hand_over(
        &mut self,
        region: &str,
        memory: &impl AsFd,
        size: u64,
        within: Duration,
    ) -> Result<(), ClientError> {
        let offer = ToAgent::Offer { region: region.to_owned(), size, device: "cpu".into(), ipc: None };
        self.offer(&offer, Some(memory.as_fd()), within)
    }

    /// Hands memory of the GPU with this UUID over, `size` bytes of it, as the region of that name.
    ///
    /// # Errors
    /// As [`Self::hand_over`].
    pub fn hand_over_gpu(
        &mut self,
        region: &str,
        gpu: &str,
        memory: GpuMemory<'_>,
        size: u64,
        within: Duration,
    ) -> Result<(), ClientError> {
        let (ipc, descriptor) = match memory {
            GpuMemory::Descriptor(descriptor) => (None, Some(descriptor)),
            GpuMemory::Handle(ipc) => (Some(ipc), None),
        };
        let offer = ToAgent::Offer { region: region.to_owned(), size, device: gpu.to_owned(), ipc };
        self.offer(&offer, descriptor, within)
    }

    /// Offers until the MemoryRegion is there.
    fn offer(
        &mut self,
        offer: &ToAgent,
        descriptor: Option<BorrowedFd<'_>>,
        within: Duration,
    ) -> Result<(), ClientError> {
        let deadline = Instant::now() + within;
        loop {
            self.say(offer, descriptor, deadline)?;
            match self.answer(deadline) {
                Ok(FromAgent::Accepted { .. }) => return Ok(()),
                Ok(_) => return Err(ClientError::OutOfTurn),
                Err(ClientError::Refused { reason, .. })
                    if reason == NOT_YET && Instant::now() + OFFER_AGAIN < deadline =>
                {
                    // Nothing tells a client of a new object.
                    std::thread::sleep(OFFER_AGAIN);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes memory back; when this returns no transfer can reach it.
    ///
    /// # Errors
    /// What the socket says.
    pub fn withdraw(&mut self, region: &str, within: Duration) -> Result<(), ClientError> {
        let deadline = Instant::now() + within;
        self.say(&ToAgent::Withdraw { region: region.to_owned() }, None, deadline)?;
        match self.answer(deadline)? {
            FromAgent::Withdrawn { .. } => Ok(()),
            _ => Err(ClientError::OutOfTurn),
        }
    }

    /// The next thing that the agent says by itself.
    ///
    /// # Errors
    /// `TimedOut`, `Closed`, and what the socket says.
    pub fn next(&mut self, within: Duration) -> Result<Event, ClientError> {
        match self.events.pop_front() {
            Some(event) => Ok(event),
            None => self.receive(Instant::now() + within),
        }
    }

    /// The answer to what was just said; events that come before it are kept.
    fn answer(&mut self, deadline: Instant) -> Result<FromAgent, ClientError> {
        loop {
            match self.receive(deadline)? {
                event @ (Event::Finished { .. } | Event::Ended { .. }) => self.events.push_back(event),
                FromAgent::Refused { reason, message, .. } => {
                    return Err(ClientError::Refused { reason, message });
                }
                answer => return Ok(answer),
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<FromAgent, ClientError> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(message) = self.decoder.take()? {
                return Ok(message);
            }
            self.socket.set_read_timeout(Some(left(deadline)?))?;
            match receive(&self.socket, &mut buffer, &mut Vec::new()) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(length) => self.decoder.push(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(ClientError::Closed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(ClientError::TimedOut),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn say(
        &mut self,
        message: &ToAgent,
        mut descriptor: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<(), ClientError> {
        let bytes = encode(message)?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            self.socket.set_write_timeout(Some(left(deadline)?))?;
            match send(&self.socket, rest, descriptor) {
                Ok(sent) => {
                    rest = rest.get(sent..).unwrap_or_default();
                    descriptor = None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(ClientError::TimedOut),
                // Why it was closed may stand there to be read.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// A full queue of the agent is waited for no longer than anything else.
fn open(path: &Path, within: Duration) -> Result<UnixStream, ClientError> {
    let connected = || {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&socket, Timeout::Send, Some(within))?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket)
    };
    connected().map(UnixStream::from).map_err(|errno| match errno {
        Errno::AGAIN => ClientError::TimedOut,
        other => ClientError::Io(other.into()),
    })
}

fn left(deadline: Instant) -> Result<Duration, ClientError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ClientError::TimedOut) } else { Ok(left) }
}
