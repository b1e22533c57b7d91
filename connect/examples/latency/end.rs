//! One end of a pair, in Rust: metadata goes from the passive end's standard output to the active end's standard input,
//! `done` the other way; figures go to standard error. `end.py` is the same in Python.

use std::io::{Write, stdin, stdout};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nixl_connect::{Connector, Descriptor, Library, RdmaMetadata};
use rustix::time::{ClockId, clock_gettime};

use super::Outcome;
use super::plan::Case;

/// Longest time that one operation, or the other end, may take.
const SOON: Duration = Duration::from_secs(30);
/// What the bytes that are moved have in common; the case's number is added.
const FILL: u8 = 0x40;

fn connector(role: &str) -> Outcome<Connector> {
    let path = |variable: &str| std::env::var_os(variable).ok_or_else(|| format!("{variable} is not set"));
    let library = Library::load(
        Path::new(&path("NIXL_TRANSFER_NIXL_LIBRARY")?),
        Path::new(&path("NIXL_TRANSFER_NIXL_PLUGINS")?),
    )?;
    Ok(Connector::start_named(role, &library)?)
}

/// Offers memory, and measures until both ends are done.
pub fn passive(plan: &[Case]) -> Outcome {
    let connector = connector("passive")?;
    for (index, case) in plan.iter().enumerate() {
        let fill = FILL + index as u8;
        let mut figures = Vec::new();
        match *case {
            Case::Read { size, count } => {
                let memory = Arc::new(Descriptor::from_vec(vec![fill; size])?);
                for _ in 0..count {
                    let since = Instant::now();
                    let operation = connector.create_readable(Arc::clone(&memory)).blocking()?;
                    say(&operation.metadata().to_json())?;
                    operation.wait_for_completion(Instant::now() + SOON).blocking()?;
                    expect("done")?;
                    figures.push(since.elapsed());
                }
            }
            Case::Write { size, count } => {
                let mut memory = Descriptor::zeroed(size)?;
                for _ in 0..count {
                    let since = Instant::now();
                    let operation = connector.create_writable(memory).blocking()?;
                    say(&operation.metadata().to_json())?;
                    operation.wait_for_completion(Instant::now() + SOON).blocking()?;
                    expect("done")?;
                    figures.push(since.elapsed());
                    memory = only(operation.into_descriptors().map_err(|_| "not given back")?)?;
                }
                check(&memory, fill)?;
            }
            Case::Idle { seconds } => figures.push(processor_time_of_rest(seconds)),
            Case::Open { seconds } => {
                let operation = connector.create_readable(Descriptor::zeroed(64)?).blocking()?;
                figures.push(processor_time_of_rest(seconds));
                drop(operation);
            }
        }
        let figures: Vec<String> = figures.iter().map(|figure| figure.as_nanos().to_string()).collect();
        eprintln!("figures {case} {}", figures.join(" "));
    }
    Ok(())
}

/// Takes part, and says when it is done.
pub fn active(plan: &[Case]) -> Outcome {
    let connector = connector("active")?;
    for (index, case) in plan.iter().enumerate() {
        let fill = FILL + index as u8;
        match *case {
            Case::Read { size, count } => {
                let mut memory = Descriptor::zeroed(size)?;
                for _ in 0..count {
                    let operation =
                        connector.begin_read(RdmaMetadata::parse(&hear()?)?, memory).blocking()?;
                    operation.wait_for_completion(Instant::now() + SOON).blocking()?;
                    say("done")?;
                    memory = only(operation.into_descriptors().map_err(|_| "not given back")?)?;
                }
                check(&memory, fill)?;
            }
            Case::Write { size, count } => {
                let memory = Arc::new(Descriptor::from_vec(vec![fill; size])?);
                for _ in 0..count {
                    let metadata = RdmaMetadata::parse(&hear()?)?;
                    let operation = connector.begin_write(Arc::clone(&memory), metadata).blocking()?;
                    operation.wait_for_completion(Instant::now() + SOON).blocking()?;
                    say("done")?;
                }
            }
            Case::Idle { .. } | Case::Open { .. } => {}
        }
    }
    Ok(())
}

/// What all threads of this process have used of the processors, in user and system mode, while nobody asked for anything.
fn processor_time_of_rest(seconds: u64) -> Duration {
    let used = || {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs() as u32)
    };
    let before = used();
    std::thread::sleep(Duration::from_secs(seconds));
    used().saturating_sub(before)
}

fn only(mut memory: Vec<Descriptor>) -> Outcome<Descriptor> {
    memory.pop().ok_or_else(|| "an operation gave no descriptor back".into())
}

fn check(memory: &Descriptor, fill: u8) -> Outcome {
    let right = memory.bytes().is_some_and(|bytes| bytes.iter().all(|byte| *byte == fill));
    if right { Ok(()) } else { Err("wrong bytes arrived".into()) }
}

fn say(line: &str) -> Outcome {
    let mut out = stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn hear() -> Outcome<String> {
    let mut line = String::new();
    stdin().read_line(&mut line)?;
    if line.is_empty() { Err("the other end is gone".into()) } else { Ok(line.trim_end().to_owned()) }
}

fn expect(word: &str) -> Outcome {
    let line = hear()?;
    if line == word { Ok(()) } else { Err(format!("the other end said {line:?}").into()) }
}
