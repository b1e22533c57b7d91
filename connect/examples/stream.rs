//! Measures the staged stream between two processes over UCX tcp on the loopback device, and verifies every byte.
//!
//! `cargo run -p nixl-connect --example stream -- [MIB [CHUNK_KIB [SLOTS]]]` starts both ends; NIXL is found as
//! `ends/start.rs` says.

#[path = "ends/start.rs"]
mod ends;

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};

use nixl_connect::{CheckedMetadata, Library, RdmaMetadata, Receiver, Sender, Session, exit_now};

pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// What both ends agree on.
#[derive(Clone, Copy)]
struct Plan {
    total: u64,
    chunk_size: usize,
    slots: usize,
}

pub fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((role, numbers)) if role == "send" || role == "receive" => {
            let plan = plan(numbers)?;
            let outcome = if role == "send" { send(plan) } else { receive(plan) };
            if let Err(error) = &outcome {
                eprintln!("{role}: {error}");
            }
            exit_now(i32::from(outcome.is_err()))
        }
        _ => both(&arguments),
    }
}

fn plan(numbers: &[String]) -> Outcome<Plan> {
    let number = |at: usize, default: u64| numbers.get(at).map_or(Ok(default), |text| text.parse::<u64>());
    Ok(Plan {
        total: number(0, 4096)? << 20,
        chunk_size: usize::try_from(number(1, 1024)? << 10)?,
        slots: usize::try_from(number(2, 8)?)?,
    })
}

/// Starts the two ends and passes each one's line to the other.
fn both(numbers: &[String]) -> Outcome {
    plan(numbers)?;
    let (mut receiver, mut sender) = (ends::start("receive", numbers)?, ends::start("send", numbers)?);
    let mut from_receiver = BufReader::new(receiver.stdout.take().ok_or("no pipe")?);
    let mut from_sender = BufReader::new(sender.stdout.take().ok_or("no pipe")?);
    let (mut offer, mut agent) = (String::new(), String::new());
    from_receiver.read_line(&mut offer)?;
    from_sender.read_line(&mut agent)?;
    receiver.stdin.take().ok_or("no pipe")?.write_all(agent.as_bytes())?;
    sender.stdin.take().ok_or("no pipe")?.write_all(offer.as_bytes())?;
    let mut said = String::new();
    from_sender.read_to_string(&mut said)?;
    from_receiver.read_to_string(&mut said)?;
    print!("{said}");
    let (receiver, sender) = (receiver.wait()?, sender.wait()?);
    if receiver.success() && sender.success() { Ok(()) } else { Err("one end failed".into()) }
}

fn session(role: &str) -> Outcome<Session> {
    let (path, plugins) = ends::nixl();
    let library = Library::load(&path, &plugins)?;
    let session = Session::start(&format!("{role}-{}", std::process::id()), &library)?;
    session.create_backend()?;
    Ok(session)
}

fn peer_line() -> Outcome<String> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// Bytes that differ from place to place and are cheap to make: the number of each 8-byte word, scrambled.
fn word(at: u64) -> u64 {
    at.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn receive(plan: Plan) -> Outcome {
    let session = session("receiver")?;
    let mut receiver = Receiver::open(&session, plan.slots, plan.chunk_size, "example-stream")?;
    println!("{}", receiver.rdma_metadata().to_json());
    receiver.connect(CheckedMetadata::decode(&peer_line()?, None)?)?;
    let (mut at, mut checked) = (0_u64, 0_u64);
    while let Some(chunk) = receiver.next(Instant::now() + Duration::from_secs(20))? {
        // The stream has compared digests; here one word per 4 KiB shows that the right bytes came.
        for (index, page) in chunk.chunks(4096).enumerate() {
            let expected = word(at / 8 + index as u64 * 512).to_le_bytes();
            let (word, rest) = page.split_at(page.len().min(8));
            // All of the first ring, which is not measured: so that it also shows with a null digest.
            let whole = chunk.sequence() < plan.slots as u64;
            if !expected.starts_with(word) || (whole && rest.iter().any(|byte| *byte != 0)) {
                return Err(format!("wrong byte in chunk {}", chunk.sequence()).into());
            }
            checked += 1;
        }
        at += chunk.len() as u64;
    }
    receiver.finish(Instant::now() + Duration::from_secs(20))?;
    let digests = receiver.progress().snapshot();
    println!("received {at} bytes, {} chunks by digest, {checked} pages compared", digests.chunks);
    session.close(Instant::now() + Duration::from_secs(5))?;
    if at == plan.total { Ok(()) } else { Err("bytes are missing".into()) }
}

fn send(plan: Plan) -> Outcome {
    let session = session("sender")?;
    println!("{}", session.agent_metadata()?);
    let mut sender = Sender::open(&session, plan.slots, plan.chunk_size)?;
    sender.connect(&RdmaMetadata::parse(&peer_line()?)?)?;
    let deadline = || Instant::now() + Duration::from_secs(20);
    let (mut at, mut warm) = (0, None);
    while at < plan.total {
        let mut slot = sender.slot(deadline())?;
        let length = usize::try_from((plan.total - at).min(plan.chunk_size as u64))?;
        for (index, page) in slot[..length].chunks_mut(4096).enumerate() {
            let bytes = word(at / 8 + index as u64 * 512).to_le_bytes();
            let written = page.len().min(8);
            page[..written].copy_from_slice(&bytes[..written]);
        }
        slot.send(length)?;
        at += length as u64;
        // The first round through the ring sets up the connection.
        if warm.is_none() && sender.progress().snapshot().chunks >= plan.slots as u64 {
            warm = Some((Instant::now(), sender.progress().snapshot().bytes));
        }
    }
    sender.finish(deadline())?;
    let Some((since, before)) = warm else {
        println!("sent {at} bytes, too few to measure a rate");
        session.close(Instant::now() + Duration::from_secs(5))?;
        return Ok(());
    };
    let bytes = sender.progress().snapshot().bytes - before;
    let seconds = since.elapsed().as_secs_f64();
    println!("sent {bytes} bytes in {seconds:.3} s: {:.2} GB/s", bytes as f64 / seconds / 1e9);
    session.close(Instant::now() + Duration::from_secs(5))?;
    Ok(())
}
