//! Measures one Write into a remote Writable, from region to region: nothing is staged, and no digest is made. Every byte is
//! compared after the end.
//!
//! `cargo run -p nixl-connect --example regions -- [MIB]` starts both ends; NIXL is found as `ends/start.rs` says.

#[path = "ends/start.rs"]
mod ends;

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};

use nixl_connect::{Connector, Descriptor, Library, RdmaMetadata, exit_now};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The first operation of two peers is not like the others.
const WARM: usize = 1 << 20;
const WITHIN: Duration = Duration::from_secs(300);

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((role, numbers)) if role == "send" || role == "receive" => {
            let outcome =
                size(numbers).and_then(|size| if role == "send" { send(size) } else { receive(size) });
            if let Err(error) = &outcome {
                eprintln!("{role}: {error}");
            }
            exit_now(i32::from(outcome.is_err()))
        }
        _ => both(&arguments),
    }
}

fn size(numbers: &[String]) -> Outcome<usize> {
    Ok(numbers.first().map_or(Ok(1024), |text| text.parse::<usize>())? << 20)
}

/// Starts the two ends and passes on what the receiver offers.
fn both(numbers: &[String]) -> Outcome {
    size(numbers)?;
    let (mut receiver, mut sender) = (ends::start("receive", numbers)?, ends::start("send", numbers)?);
    let mut offers = BufReader::new(receiver.stdout.take().ok_or("no pipe")?);
    let mut lines = String::new();
    for _ in 0..2 {
        offers.read_line(&mut lines)?;
    }
    sender.stdin.take().ok_or("no pipe")?.write_all(lines.as_bytes())?;
    let mut said = String::new();
    sender.stdout.take().ok_or("no pipe")?.read_to_string(&mut said)?;
    print!("{said}");
    let sent = sender.wait()?;
    let received = receiver.wait()?;
    if sent.success() && received.success() { Ok(()) } else { Err("one end failed".into()) }
}

fn connector() -> Outcome<Connector> {
    let (path, plugins) = ends::nixl();
    Ok(Connector::start(&Library::load(&path, &plugins)?)?)
}

/// The number of each 8-byte word, scrambled.
fn word(at: usize) -> [u8; 8] {
    (at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()
}

fn receive(size: usize) -> Outcome {
    let connector = connector()?;
    let mut offered = Vec::new();
    for size in [WARM, size] {
        let mut memory = Descriptor::zeroed(size)?;
        // Touched before, so that the first touch of a page is not what is measured.
        memory.bytes_mut().ok_or("no host memory")?.fill(1);
        let operation = connector.create_writable(vec![memory]).blocking()?;
        println!("{}", serde_json::to_string(operation.metadata())?);
        offered.push(operation);
    }
    std::io::stdout().flush()?;
    for operation in offered {
        operation.wait_for_completion(Instant::now() + WITHIN).blocking()?;
        for memory in operation.results()? {
            let bytes = memory.bytes().ok_or("no host memory")?;
            if !bytes.chunks_exact(8).enumerate().all(|(at, bytes)| bytes == word(at)) {
                return Err("wrong bytes arrived".into());
            }
        }
    }
    Ok(connector.close(Instant::now() + WITHIN)?)
}

fn send(size: usize) -> Outcome {
    let connector = connector()?;
    let mut seconds = 0.0;
    for size in [WARM, size] {
        let mut memory = Descriptor::zeroed(size)?;
        let bytes = memory.bytes_mut().ok_or("no host memory")?;
        bytes.chunks_exact_mut(8).enumerate().for_each(|(at, bytes)| bytes.copy_from_slice(&word(at)));
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        let remote = RdmaMetadata::parse(line.trim_end())?;
        let since = Instant::now();
        let operation = connector.begin_write(vec![memory], remote).blocking()?;
        operation.wait_for_completion(Instant::now() + WITHIN).blocking()?;
        seconds = since.elapsed().as_secs_f64();
    }
    println!("sent {size} bytes in {seconds:.3} s: {:.2} GB/s", size as f64 / seconds / 1e9);
    Ok(connector.close(Instant::now() + WITHIN)?)
}
