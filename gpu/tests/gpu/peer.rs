//! Another process of these tests: the same program, started again as the test `another_process`, with one end of a socket
//! as its standard input. Lines and descriptors go both ways.

use std::{
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use nixl_transfer_client::{receive, send};
use nixl_transfer_gpu::{
    Access, Allocation, Context, Copier, Mapped,
    ipc::{Announced, Handle, Shared},
};

use crate::{PATIENCE, content, copier, import, pattern};

/// The variable that says that this process is the other one.
pub const ROLE: &str = "NIXL_TRANSFER_GPU_PEER";

/// The other process, from its owner's side. Killed when dropped.
pub struct Peer {
    child: Child,
    socket: UnixStream,
}

impl Peer {
    pub fn start() -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        // Contexts are slow to make when several processes start.
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["another_process", "--exact", "--ignored", "--nocapture"])
            .env(ROLE, "1")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, socket }
    }

    /// Asks for something and gives the answer, without its `ok `. Panics with the other process's error.
    pub fn ask(&mut self, line: &str, descriptor: Option<BorrowedFd<'_>>) -> (String, Option<OwnedFd>) {
        write(&self.socket, line, descriptor);
        let (answer, descriptor) =
            read(&self.socket).unwrap_or_else(|| panic!("the other process ended at {line:?}"));
        let answer = answer.strip_prefix("ok").unwrap_or_else(|| panic!("{line:?}: {answer}"));
        (answer.trim().to_owned(), descriptor)
    }

    /// Ends it at once, and waits for that.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a `share` was answered with.
pub fn announced(answer: &str) -> Announced {
    let (handle, allocation) = answer.split_once(' ').expect("a handle and a length");
    let byte = |at| u8::from_str_radix(&handle[at..at + 2], 16).unwrap();
    let handle: Vec<u8> = (0..handle.len()).step_by(2).map(byte).collect();
    let allocation = allocation.parse().unwrap();
    Announced { handle: Handle::from_bytes(&handle).unwrap(), allocation, offset: 0, bytes: allocation }
}

/// Does what the owner asks for until it closes the socket.
pub fn serve(context: &Arc<Context>) {
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let mut state = State::default();
    while let Some((line, descriptor)) = read(&socket) {
        match state.act(context, &line, descriptor) {
            Ok((answer, descriptor)) => {
                write(&socket, &format!("ok {answer}"), descriptor.as_ref().map(AsFd::as_fd));
            }
            Err(error) => write(&socket, &format!("error {error}"), None),
        }
    }
}

#[derive(Default)]
struct State {
    memory: Option<Arc<Mapped>>,
    shared: Option<Shared>,
}

type Done = Result<(String, Option<OwnedFd>), Box<dyn std::error::Error>>;

impl State {
    fn act(&mut self, context: &Arc<Context>, line: &str, descriptor: Option<OwnedFd>) -> Done {
        let mut words = line.split(' ');
        let verb = words.next().unwrap_or_default();
        let numbers: Vec<u64> = words.map(str::parse).collect::<Result<_, _>>()?;
        match (verb, numbers[..].first_chunk::<1>(), numbers.get(1)) {
            // Memory with a seed's bytes, as a descriptor.
            ("create", Some([bytes]), Some(seed)) => {
                let allocation = Allocation::create(context, *bytes, PATIENCE)?;
                copier(&import(context, &allocation)).write(0, &pattern(*seed, *bytes))?;
                Ok((String::new(), Some(allocation.into_descriptor())))
            }
            ("import", Some([bytes]), None) => {
                let descriptor = descriptor.ok_or("no descriptor")?;
                let mapped = Mapped::import(descriptor.as_fd(), context, *bytes, Access::ReadWrite)?;
                self.memory = Some(Arc::new(mapped));
                Ok((String::new(), None))
            }
            ("check", Some([seed]), None) => {
                let memory = self.memory.as_ref().ok_or("nothing imported")?;
                let equal = content(memory) == pattern(*seed, memory.len());
                if equal { Ok((String::new(), None)) } else { Err("other bytes".into()) }
            }
            ("write", Some([seed]), None) => {
                let memory = self.memory.as_ref().ok_or("nothing imported")?;
                Copier::new(Arc::clone(memory), PATIENCE)?.write(0, &pattern(*seed, memory.len()))?;
                Ok((String::new(), None))
            }
            // Memory as PyTorch's, with a seed's bytes.
            ("share", Some([bytes]), Some(seed)) => {
                let shared = Shared::allocate(context, *bytes)?;
                copier(shared.memory()).write(0, &pattern(*seed, *bytes))?;
                let announced = shared.announce(0, *bytes)?;
                self.shared = Some(shared);
                let handle: String =
                    announced.handle.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                Ok((format!("{handle} {}", announced.allocation), None))
            }
            _ => Err("no such request".into()),
        }
    }
}

fn write(socket: &UnixStream, line: &str, descriptor: Option<BorrowedFd<'_>>) {
    let line = format!("{line}\n");
    assert_eq!(send(socket, line.as_bytes(), descriptor).unwrap(), line.len());
}

/// The next line, and the descriptor that came with it; `None` when the other end is closed.
fn read(socket: &UnixStream) -> Option<(String, Option<OwnedFd>)> {
    let (mut line, mut descriptors) = (Vec::new(), Vec::new());
    while line.last() != Some(&b'\n') {
        let mut buffer = [0; 512];
        let count = receive(socket, &mut buffer, &mut descriptors).expect("an answer in time");
        if count == 0 {
            return None;
        }
        line.extend_from_slice(&buffer[..count]);
    }
    Some((String::from_utf8(line).unwrap().trim_end().to_owned(), descriptors.pop()))
}
