//! Measures the memory of another process used in pieces, beside one operation over all of it: read and written, from and into
//! a buffer of the same size. What was read is compared, and what was written too.
//!
//! `cargo run -p nixl-connect --example pieces -- [MIB [SLOTS [SLOT_KIB [ROUNDS]]]]` starts both ends and prints the best and
//! the middle of the rounds; NIXL is found as `ends/start.rs` says.

#[path = "ends/start.rs"]
mod ends;

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nixl_connect::{Connector, Descriptor, Library, RdmaMetadata, RemoteMemory, Session, Staging, exit_now};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const KINDS: [&str; 4] = ["read in pieces", "read whole", "written in pieces", "written whole"];

#[derive(Clone, Copy)]
struct Plan {
    size: usize,
    staging: Staging,
    rounds: usize,
}

impl Plan {
    fn of(numbers: &[String]) -> Outcome<Self> {
        let number =
            |at: usize, otherwise: usize| numbers.get(at).map_or(Ok(otherwise), |text| text.parse::<usize>());
        let staging = Staging { slots: number(1, 8)?, slot_size: number(2, 1024)? << 10 };
        Ok(Self { size: number(0, 256)? << 20, staging, rounds: number(3, 5)? })
    }
}

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((role, numbers)) if role == "own" || role == "use" => {
            let outcome =
                Plan::of(numbers).and_then(|plan| if role == "use" { r#use(plan) } else { own(plan) });
            if let Err(error) = &outcome {
                eprintln!("{role}: {error}");
            }
            exit_now(i32::from(outcome.is_err()))
        }
        _ => both(&arguments),
    }
}

/// Starts the two ends and passes on what the owner offers.
fn both(numbers: &[String]) -> Outcome {
    let plan = Plan::of(numbers)?;
    let (mut owner, mut user) = (ends::start("own", numbers)?, ends::start("use", numbers)?);
    let mut offers = BufReader::new(owner.stdout.take().ok_or("no pipe")?);
    let mut lines = String::new();
    for _ in 0..plan.rounds * KINDS.len() {
        offers.read_line(&mut lines)?;
    }
    user.stdin.take().ok_or("no pipe")?.write_all(lines.as_bytes())?;
    let mut said = String::new();
    user.stdout.take().ok_or("no pipe")?.read_to_string(&mut said)?;
    print!("{said}");
    if user.wait()?.success() && owner.wait()?.success() { Ok(()) } else { Err("one end failed".into()) }
}

fn library() -> Outcome<Library> {
    let (path, plugins) = ends::nixl();
    Ok(Library::load(&path, &plugins)?)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(120)
}

/// The number of each 8-byte word, scrambled.
fn filled(size: usize) -> Vec<u8> {
    (0..size as u64 / 8).flat_map(|at| at.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()).collect()
}

fn own(plan: Plan) -> Outcome {
    let connector = Connector::start(&library()?)?;
    let expected = filled(plan.size);
    let source = Arc::new(Descriptor::from_vec(expected.clone())?);
    let (mut readables, mut writables) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        for _ in 0..2 {
            let operation = connector.create_readable(Arc::clone(&source)).blocking()?;
            println!("{}", operation.metadata().to_json());
            readables.push(operation);
        }
        for _ in 0..2 {
            let operation =
                connector.create_writable(Descriptor::from_vec(vec![1; plan.size])?).blocking()?;
            println!("{}", operation.metadata().to_json());
            writables.push(operation);
        }
    }
    std::io::stdout().flush()?;
    for operation in readables {
        operation.wait_for_completion(soon()).blocking()?;
    }
    for operation in writables {
        operation.wait_for_completion(soon()).blocking()?;
        if operation.results()?[0].bytes() != Some(&expected[..]) {
            return Err("wrong bytes arrived".into());
        }
    }
    Ok(())
}

fn r#use(plan: Plan) -> Outcome {
    let library = library()?;
    let connector = Connector::start(&library)?;
    let session = Session::start(&format!("pieces-{}", std::process::id()), &library)?;
    session.create_backend()?;
    let expected = filled(plan.size);
    let mut seconds = [const { Vec::new() }; KINDS.len()];
    let mut lines = std::io::stdin().lines();
    let mut buffer = vec![1; plan.size];
    for _ in 0..plan.rounds {
        for (kind, seconds) in seconds.iter_mut().enumerate() {
            let remote = RdmaMetadata::parse(&lines.next().ok_or("no offer")??)?;
            buffer.fill(1);
            let local = Descriptor::from_vec(if kind < 2 { buffer.clone() } else { expected.clone() })?;
            let since = Instant::now();
            match kind {
                0 => read_in_pieces(&session, remote, plan.staging, &mut buffer)?,
                1 => {
                    let operation = connector.begin_read(remote, local).blocking()?;
                    operation.wait_for_completion(soon()).blocking()?;
                    seconds.push(since.elapsed().as_secs_f64());
                    buffer.copy_from_slice(operation.results()?[0].bytes().ok_or("no host memory")?);
                }
                2 => write_in_pieces(&session, remote, plan.staging, &expected)?,
                _ => {
                    let operation = connector.begin_write(local, remote).blocking()?;
                    operation.wait_for_completion(soon()).blocking()?;
                }
            }
            if kind != 1 {
                seconds.push(since.elapsed().as_secs_f64());
            }
            if kind < 2 && buffer != expected {
                return Err("wrong bytes are here".into());
            }
        }
    }
    for (kind, mut seconds) in KINDS.iter().zip(seconds) {
        seconds.sort_by(f64::total_cmp);
        let rate = |seconds: f64| plan.size as f64 / seconds / 1e9;
        println!("{kind}: best {:.2} GB/s, middle {:.2}", rate(seconds[0]), rate(seconds[seconds.len() / 2]));
    }
    Ok(())
}

fn read_in_pieces(session: &Session, remote: RdmaMetadata, staging: Staging, buffer: &mut [u8]) -> Outcome {
    let mut memory = RemoteMemory::open(session, remote, staging, soon())?;
    let mut at = 0;
    for piece in buffer.chunks_mut(1 << 20) {
        memory.read(at, piece, soon())?;
        at += piece.len() as u64;
    }
    Ok(memory.complete(soon())?)
}

fn write_in_pieces(session: &Session, remote: RdmaMetadata, staging: Staging, bytes: &[u8]) -> Outcome {
    let mut memory = RemoteMemory::open(session, remote, staging, soon())?;
    let mut at = 0;
    for piece in bytes.chunks(1 << 20) {
        memory.write(at, piece, soon())?;
        at += piece.len() as u64;
    }
    memory.flush(soon())?;
    Ok(memory.complete(soon())?)
}
