//! A minimal NIXL loop to compare with: one process writes a ring of slots into another's, again and again, with no
//! digest, no credit and nothing stored; the ring is compared once, after the end.
//! `cargo run -p nixl-connect --example raw -- [MIB [default|polling [write|read|whole]]]`: with NIXL's default settings, or
//! with its progress thread off; the sender writes, or the receiver reads, or all is written at once from a region of that
//! size to another. NIXL is found as in the example `stream`.
#![allow(unsafe_code)] // NIXL wants to know where memory is; the example says it in one place

#[path = "ends/start.rs"]
mod ends;

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use nixl_connect::{Arena, Library, exit_now};
use nixl_sys::{
    Agent, AgentConfig, Backend, MemType, MemoryRegion, NixlDescriptor, OptArgs, XferDescList, XferOp,
    XferStatus,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const RECEIVER: &str = "raw-receiver";

/// What is written at once, and how many of that are on their way.
#[derive(Clone, Copy, Debug)]
struct Shape {
    chunk: usize,
    slots: usize,
}

impl Shape {
    fn of(arguments: &[String]) -> Outcome<Self> {
        Ok(if operation(arguments) == "whole" {
            Self { chunk: usize::try_from(total(arguments)?)?, slots: 1 }
        } else {
            Self { chunk: 1 << 20, slots: 8 }
        })
    }
}

#[derive(Debug)]
struct Range(Arc<Arena>);

impl MemoryRegion for Range {
    unsafe fn as_ptr(&self) -> *const u8 {
        self.0.address() as *const u8
    }
    fn size(&self) -> usize {
        self.0.len()
    }
}

/// What lies in the memory that is sent: the number of each 8-byte word, scrambled.
fn words(bytes: usize) -> impl Iterator<Item = u64> {
    (0..(bytes / 8) as u64).map(|at| at.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

impl Range {
    fn fill(&self) {
        for (at, word) in words(self.0.len()).enumerate() {
            // SAFETY: within the arena, which is aligned to pages; nobody else has been told of it yet.
            unsafe { ((self.0.address() + 8 * at) as *mut u64).write(word) };
        }
    }

    fn is_filled(&self) -> bool {
        // SAFETY: as above; the sender has ended, so nothing is written any more.
        words(self.0.len())
            .enumerate()
            .all(|(at, word)| unsafe { ((self.0.address() + 8 * at) as *const u64).read_volatile() } == word)
    }
}

impl NixlDescriptor for Range {
    fn mem_type(&self) -> MemType {
        MemType::Dram
    }
    fn device_id(&self) -> u64 {
        0
    }
}

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("send" | "receive") => {
            let outcome =
                if arguments[0] == "send" { send(&arguments[1..]) } else { receive(&arguments[1..]) };
            if let Err(error) = &outcome {
                eprintln!("{}: {error}", arguments[0]);
            }
            exit_now(i32::from(outcome.is_err()))
        }
        _ => both(&arguments),
    }
}

fn both(arguments: &[String]) -> Outcome {
    let (mut receiver, mut sender) = (ends::start("receive", arguments)?, ends::start("send", arguments)?);
    let mut offer = String::new();
    BufReader::new(receiver.stdout.take().ok_or("no pipe")?).read_line(&mut offer)?;
    sender.stdin.take().ok_or("no pipe")?.write_all(offer.as_bytes())?;
    let mut said = String::new();
    sender.stdout.take().ok_or("no pipe")?.read_to_string(&mut said)?;
    print!("{said}");
    let sent = sender.wait()?;
    // The end of its input ends the receiver.
    drop(receiver.stdin.take());
    let received = receiver.wait()?;
    if sent.success() && received.success() { Ok(()) } else { Err("one end failed".into()) }
}

fn agent(name: &str, arguments: &[String]) -> Outcome<(Agent, Backend, Arc<Arena>)> {
    let (path, plugins) = ends::nixl();
    Library::load(&path, &plugins)?;
    let polling = arguments.get(1).is_some_and(|mode| mode == "polling");
    let config =
        AgentConfig { enable_prog_thread: !polling, enable_listen_thread: false, ..AgentConfig::default() };
    let agent = Agent::new_configured(name, &config)?;
    let (_, parameters) = agent.get_plugin_params("UCX")?;
    let backend = agent.create_backend("UCX", &parameters)?;
    let Shape { chunk, slots } = Shape::of(arguments)?;
    Ok((agent, backend, Arc::new(Arena::new(chunk * slots)?)))
}

fn total(arguments: &[String]) -> Outcome<u64> {
    Ok(arguments.first().map_or(Ok(4096), |text| text.parse::<u64>())? << 20)
}

fn operation(arguments: &[String]) -> &str {
    arguments.get(2).map_or("write", String::as_str)
}

/// Whether the active one reads what the other has, instead of writing to it.
fn reads(arguments: &[String]) -> bool {
    operation(arguments) == "read"
}

/// The passive end. Its name is from writing; when it is read, it is the one that has the data.
fn receive(arguments: &[String]) -> Outcome {
    let (agent, _backend, arena) = agent(RECEIVER, arguments)?;
    if reads(arguments) {
        Range(arena.clone()).fill();
    }
    let _registered = agent.register_memory(&Range(arena.clone()), None)?;
    let metadata: String = agent.get_local_md()?.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{} {metadata}", arena.address());
    std::io::stdout().flush()?;
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = ended.send(());
    });
    // It has to make progress for what the other does.
    let mut notifications = nixl_sys::NotificationMap::new()?;
    while end.try_recv().is_err() {
        agent.get_notifications(&mut notifications, None)?;
        std::thread::yield_now();
    }
    if !Range(arena).is_filled() {
        return Err("wrong bytes arrived".into());
    }
    exit_now(0)
}

fn send(arguments: &[String]) -> Outcome {
    let (total, Shape { chunk, slots }) = (total(arguments)?, Shape::of(arguments)?);
    let (agent, backend, arena) = agent("raw-sender", arguments)?;
    let operation = if reads(arguments) { XferOp::Read } else { XferOp::Write };
    if operation == XferOp::Write {
        Range(arena.clone()).fill();
    }
    let _registered = agent.register_memory(&Range(arena.clone()), None)?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let (address, metadata) = line.trim_end().split_once(' ').ok_or("no offer")?;
    let remote: usize = address.parse()?;
    let bytes: Result<Vec<u8>, _> =
        (0..metadata.len() / 2).map(|at| u8::from_str_radix(&metadata[2 * at..2 * at + 2], 16)).collect();
    agent.load_remote_md(&bytes?)?;
    let mut options = OptArgs::new()?;
    options.add_backend(&backend)?;
    let mut requests = Vec::new();
    for slot in 0..slots {
        let (mut here, mut there) = (XferDescList::new(MemType::Dram)?, XferDescList::new(MemType::Dram)?);
        here.add_desc(arena.address() + slot * chunk, chunk, 0);
        there.add_desc(remote + slot * chunk, chunk, 0);
        requests.push(agent.create_xfer_req(operation, &here, &there, RECEIVER, Some(&options))?);
    }
    let mut run = |bytes: u64| -> Outcome {
        let mut left = bytes / chunk as u64;
        let mut flying = vec![false; slots];
        while left > 0 || flying.contains(&true) {
            for (request, flying) in requests.iter_mut().zip(&mut flying) {
                if *flying {
                    *flying = agent.get_xfer_status(request)? == XferStatus::InProgress;
                } else if left > 0 {
                    left -= 1;
                    *flying = agent.post_xfer_req(request, Some(&options))?;
                }
            }
        }
        Ok(())
    };
    // The first round sets up the connection.
    run((chunk * slots) as u64)?;
    let since = Instant::now();
    run(total)?;
    let seconds = since.elapsed().as_secs_f64();
    if !Range(arena).is_filled() {
        return Err("wrong bytes are here".into());
    }
    println!("sent {total} bytes in {seconds:.3} s: {:.2} GB/s", total as f64 / seconds / 1e9);
    Ok(())
}
