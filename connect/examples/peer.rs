//! One side of one operation, for people and for tests. Two terminals, or a shell's two fifos:
//!
//! `peer readable|writable --size N[,N...] [--hex] [--fill BYTE] [--timeout S]` prints the `RdmaMetadata` as one line of JSON,
//! waits for a peer, and prints `{"status":"DONE","sha256":"..."}`.
//!
//! `peer read|write [--size N[,N...]] [--fill BYTE] [--timeout S]` takes that line on standard input, moves the bytes, and
//! prints the same kind of line. The other side may just as well be Dynamo's `nixl_connect`.
//!
//! A failure is one line of JSON with `error`, a name that never changes, and `message`. Nothing else is printed to
//! standard output, and the exit code is 0 only after DONE. The sum is over the local memory as it is then.

#[path = "peer/arguments.rs"]
mod arguments;
#[path = "peer/failure.rs"]
mod failure;
#[path = "peer/nixl.rs"]
mod nixl;

use std::io::{BufRead, Read, Write};
use std::sync::mpsc;

use arguments::{Active, Common, Passive, Role};
use failure::Failure;
use nixl_connect::{Connector, Descriptor, Encoding, OperationStatus, RdmaMetadata, exit_now};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// More than any `RdmaMetadata` has; the parser's own bound is below.
const LONGEST_LINE: u64 = 4 << 20;

fn main() {
    // First of all: the environment can be changed only while this is the one thread.
    nixl::prepare_environment();
    let outcome = Role::from_arguments().and_then(run);
    let printed = match &outcome {
        Ok(done) => print(done),
        Err(failure) => print(failure),
    };
    // Destructors of NIXL's libraries can crash at the end of a process, so this one ends without them.
    exit_now(i32::from(outcome.is_err() || printed.is_err()))
}

/// What is printed at the end of an operation that went well.
#[derive(Serialize)]
struct Done {
    status: String,
    sha256: String,
}

fn run(role: Role) -> Result<Done, Failure> {
    let connector = Connector::start(&nixl::load()?)?;
    let done = match &role {
        Role::Readable(passive) => readable(&connector, passive),
        Role::Writable(passive) => writable(&connector, passive),
        Role::Read(active) => read(&connector, active),
        Role::Write(active) => write(&connector, active),
    }?;
    // What this side still has to tell its peer goes out before the agent ends.
    connector.close(role.common().deadline())?;
    Ok(done)
}

/// Offers memory, and waits until a peer has read it.
fn readable(connector: &Connector, passive: &Passive) -> Result<Done, Failure> {
    let operation = connector.create_readable(source(&passive.size, &passive.common)?).blocking()?;
    publish(operation.metadata(), passive.hex)?;
    operation.wait_for_completion(passive.common.deadline()).blocking()?;
    done(operation.status(), operation.results()?)
}

/// Offers memory, and waits until a peer has written it.
fn writable(connector: &Connector, passive: &Passive) -> Result<Done, Failure> {
    let operation = connector.create_writable(target(&passive.size, &passive.common)?).blocking()?;
    publish(operation.metadata(), passive.hex)?;
    operation.wait_for_completion(passive.common.deadline()).blocking()?;
    done(operation.status(), operation.results()?)
}

/// Reads what a peer offers.
fn read(connector: &Connector, active: &Active) -> Result<Done, Failure> {
    let remote = received(&active.common)?;
    let local = target(&active.sizes(&remote)?, &active.common)?;
    let operation = connector.begin_read(remote, local).blocking()?;
    operation.wait_for_completion(active.common.deadline()).blocking()?;
    done(operation.status(), operation.results()?)
}

/// Writes into what a peer offers.
fn write(connector: &Connector, active: &Active) -> Result<Done, Failure> {
    let remote = received(&active.common)?;
    let local = source(&active.sizes(&remote)?, &active.common)?;
    let operation = connector.begin_write(local, remote).blocking()?;
    operation.wait_for_completion(active.common.deadline()).blocking()?;
    done(operation.status(), operation.results()?)
}

/// Memory to copy from: every byte that of `--fill`, or else one that depends on its place in the whole.
fn source(sizes: &[usize], common: &Common) -> Result<Vec<Descriptor>, Failure> {
    let mut place = 0_u64;
    let filled = sizes.iter().map(|size| {
        let mut descriptor = Descriptor::zeroed(*size)?;
        for byte in descriptor.bytes_mut().unwrap_or_default() {
            let patterned = (place.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
            *byte = common.fill.unwrap_or(patterned);
            place += 1;
        }
        Ok(descriptor)
    });
    filled.collect()
}

/// Memory to copy into.
fn target(sizes: &[usize], common: &Common) -> Result<Vec<Descriptor>, Failure> {
    let filled = sizes.iter().map(|size| {
        let mut descriptor = Descriptor::zeroed(*size)?;
        if let (Some(byte), Some(bytes)) = (common.fill, descriptor.bytes_mut()) {
            bytes.fill(byte);
        }
        Ok(descriptor)
    });
    filled.collect()
}

/// The sum is over all descriptors as one.
fn done(status: OperationStatus, descriptors: &[impl AsRef<Descriptor>]) -> Result<Done, Failure> {
    let mut hasher = Sha256::new();
    for descriptor in descriptors {
        hasher.update(descriptor.as_ref().bytes().unwrap_or_default());
    }
    let sha256 = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Done { status: status.to_string(), sha256 })
}

fn publish(metadata: &RdmaMetadata, hex: bool) -> Result<(), Failure> {
    if hex { print(&metadata.with_encoding(Encoding::Hex)?) } else { print(metadata) }
}

/// The peer's metadata from standard input.
fn received(common: &Common) -> Result<RdmaMetadata, Failure> {
    let (give, line) = mpsc::channel();
    // Not joined: reading has no deadline, the wait for it has.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().lock().take(LONGEST_LINE).read_line(&mut line);
        let _ = give.send(read.map(|_| line));
    });
    let late = |_| Failure::new("Input", "no metadata came on standard input before the deadline");
    let line = line.recv_timeout(common.timeout).map_err(late)?;
    let line = line.map_err(|error| Failure::new("Input", error))?;
    if line.is_empty() {
        return Err(Failure::new("Input", "standard input ended without metadata"));
    }
    Ok(RdmaMetadata::parse(line.trim_end())?)
}

/// One line of JSON. Serde keeps the order of the fields, which for metadata is the wire's.
fn print(value: &impl Serialize) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(value).map_err(|error| Failure::new("Output", error))?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line).and_then(|()| out.flush()).map_err(|error| Failure::new("Output", error))
}
