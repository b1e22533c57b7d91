//! What the processes do: roles by environment, results as lines that begin with `@@`. They end with `exit_now`.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nixl_connect::{
    CheckedMetadata, Library, MAX_ANSWER, MemoryKind, ProgressSnapshot, RdmaMetadata, Receiver, Sender,
    Session, StreamError, exit_now,
};

type Outcome = Result<(), Box<dyn Error>>;

/// 32 MiB and a last chunk that fills its slot by a part only.
const TOTAL: u64 = (32 << 20) + 7;
const CHUNK: usize = 256 * 1024;

pub fn run() {
    let outcome = match setting("ROLE").as_deref() {
        Some("send") => send(),
        Some("receive") => receive(),
        Some("relay") => relay(),
        Some("abort") => abort(),
        Some("warm") => warm(),
        Some("late") => late(),
        other => Err(format!("no such role: {other:?}").into()),
    };
    if let Err(error) = &outcome {
        say("failed", error);
    }
    exit_now(i32::from(outcome.is_err()))
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number(name: &str, otherwise: u64) -> Result<u64, std::num::ParseIntError> {
    setting(name).map_or(Ok(otherwise), |text| text.parse())
}

fn say(word: &str, rest: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "@@{word} {rest}").and_then(|()| out.flush());
    if written.is_err() {
        exit_now(3);
    }
}

fn heard() -> Result<String, std::io::Error> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

fn library() -> Result<Library, Box<dyn Error>> {
    let (library, plugins) =
        (setting("LIBRARY").ok_or("no LIBRARY")?, setting("NIXL_PLUGIN_DIR").ok_or("no plugins")?);
    Ok(Library::load(Path::new(&library), Path::new(&plugins))?)
}

fn session() -> Result<Session, Box<dyn Error>> {
    let session = Session::start(&format!("test-{}", std::process::id()), &library()?)?;
    session.create_backend()?;
    Ok(session)
}

fn deadline() -> Result<Instant, std::num::ParseIntError> {
    Ok(Instant::now() + Duration::from_millis(number("DEADLINE_MS", 30_000)?))
}

/// The byte that belongs at this place of the data.
fn byte(at: u64) -> u8 {
    (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

fn counters(progress: ProgressSnapshot) -> String {
    format!("bytes={} resent={} refused={}", progress.bytes, progress.resent, progress.refused)
}

fn send() -> Outcome {
    let session = session()?;
    let slots = usize::try_from(number("SLOTS", 8)?)?;
    say("agent", session.agent_metadata()?);
    let mut senders = Vec::new();
    for _ in 0..number("RECEIVERS", 1)? {
        let mut sender = Sender::open(&session, slots, CHUNK)?;
        if let Some((sequence, times)) = setting("CORRUPT").as_deref().and_then(|text| text.split_once(':')) {
            sender.corrupt_chunk(sequence.parse()?, times.parse()?);
        }
        if let Err(error) = sender.connect(&RdmaMetadata::parse(&heard()?)?) {
            say("error", format!("{error:?}"));
            return Ok(());
        }
        for number in 0..number("ANSWERS", 0)? {
            if sender.answers().next(deadline()?)? != answer(number) {
                return Err(format!("answer {number} is another").into());
            }
        }
        senders.push((sender, None::<StreamError>));
    }
    let hold_after = number("HOLD_AFTER", u64::MAX)?;
    let (mut at, mut chunks) = (0, 0);
    while at < TOTAL {
        let length = usize::try_from((TOTAL - at).min(CHUNK as u64))?;
        for (sender, failure) in senders.iter_mut().filter(|(_, failure)| failure.is_none()) {
            *failure = one_chunk(sender, at, length, deadline()?).err();
        }
        (at, chunks) = (at + length as u64, chunks + 1);
        if chunks == slots {
            say("filled", "");
        }
        if chunks as u64 == hold_after {
            say("holding", "");
            heard()?;
        }
    }
    for (mut sender, failure) in senders {
        let result = failure.map_or_else(|| sender.finish(Instant::now() + Duration::from_secs(30)), Err);
        match result {
            Ok(()) => say("done", counters(sender.progress().snapshot())),
            Err(error) => say("error", format!("{error:?}")),
        }
    }
    session.close(Instant::now() + Duration::from_secs(5))?;
    Ok(())
}

/// The longest that there is, and short ones.
fn answer(number: u64) -> Vec<u8> {
    let length = if number.is_multiple_of(2) { MAX_ANSWER } else { 1 + number as usize % 64 };
    (number..).map(byte).take(length).collect()
}

fn one_chunk(sender: &mut Sender, at: u64, length: usize, deadline: Instant) -> Result<(), StreamError> {
    let mut slot = sender.slot(deadline)?;
    for (place, target) in (at..).zip(&mut slot[..length]) {
        *target = byte(place);
    }
    slot.send(length).map(drop)
}

fn receive() -> Outcome {
    let session = session()?;
    let key = format!("stream-{}", std::process::id());
    let mut receiver = Receiver::open(&session, usize::try_from(number("SLOTS", 8)?)?, CHUNK, &key)?;
    say("offer", receiver.rdma_metadata().to_json());
    receiver.connect(CheckedMetadata::decode(&heard()?, None)?)?;
    for number in 0..number("ANSWERS", 0)? {
        receiver.answers().send(&answer(number))?;
    }
    let hold_after = number("HOLD_AFTER", u64::MAX)?;
    let mut at = 0;
    loop {
        match receiver.next(deadline()?) {
            Ok(None) => break,
            Ok(Some(chunk)) => {
                if let Some(wrong) = (at..).zip(chunk.iter()).position(|(place, found)| *found != byte(place))
                {
                    return Err(format!("chunk {} differs at {wrong}", chunk.sequence()).into());
                }
                at += chunk.len() as u64;
                if chunk.sequence() + 1 == hold_after {
                    say("holding", "");
                    heard()?;
                }
            }
            Err(error) => {
                say("error", format!("{error:?}"));
                // Stays until the test has heard the other end too: its death would be noticed there.
                heard()?;
                return Ok(());
            }
        }
    }
    let counted = receiver.progress().snapshot();
    if at != TOTAL || counted.bytes != TOTAL {
        return Err(format!("{at} bytes came, {} were counted, of {TOTAL}", counted.bytes).into());
    }
    receiver.finish(deadline()?)?;
    say("done", counters(counted));
    session.close(Instant::now() + Duration::from_secs(5))?;
    Ok(())
}

/// Receives, verifies, and sends on from the slots in which the chunks came. What is sent on and what is used here are
/// told apart: the next process may be gone and this one goes on.
fn relay() -> Outcome {
    let session = session()?;
    let mut receiver = Receiver::open(&session, usize::try_from(number("SLOTS", 8)?)?, CHUNK, "relayed")?;
    let before = session.statistics()?.regions;
    let mut onward = Some(Sender::open_relay(&receiver));
    say("memory", session.statistics()?.regions - before);
    say("offer", receiver.rdma_metadata().to_json());
    say("agent", session.agent_metadata()?);
    let next = RdmaMetadata::parse(&heard()?)?;
    receiver.connect(CheckedMetadata::decode(&heard()?, None)?)?;
    if let Some(onward) = &mut onward {
        onward.connect(&next)?;
    }
    let mut at = 0;
    while let Some(chunk) = receiver.next(deadline()?)? {
        let chunk = Arc::new(chunk);
        if let Some(sender) = &mut onward
            && let Err(error) = sender.forward(&chunk, deadline()?)
        {
            say("onward", format!("{error:?}"));
            // Its chunks go back to their sender.
            onward = None;
        }
        if let Some(wrong) = (at..).zip(chunk.iter()).position(|(place, found)| *found != byte(place)) {
            return Err(format!("chunk {} differs at {wrong}", chunk.sequence()).into());
        }
        at += chunk.len() as u64;
    }
    if let Some(sender) = &mut onward {
        sender.finish(deadline()?)?;
        say("forwarded", counters(sender.progress().snapshot()));
    }
    drop(onward);
    receiver.finish(deadline()?)?;
    say("done", counters(receiver.progress().snapshot()));
    session.close(Instant::now() + Duration::from_secs(5))?;
    Ok(())
}

/// Two waits without a peer: one ended by its abort handle, one by the end of the session.
fn abort() -> Outcome {
    let session = session()?;
    let mut first = Receiver::open(&session, 2, 4096, "first")?;
    let mut second = Receiver::open(&session, 2, 4096, "second")?;
    let handle = first.abort_handle();
    let far = Instant::now() + Duration::from_secs(50);
    let waits = std::thread::scope(|scope| {
        let first = scope.spawn(move || first.next(far).map(drop));
        handle.abort();
        let aborted = first.join();
        let second = scope.spawn(move || second.next(far).map(drop));
        drop(session);
        [aborted, second.join()]
    });
    for (word, wait) in ["next", "session"].into_iter().zip(waits) {
        match wait {
            Ok(Err(error)) => say(word, format!("{error:?}")),
            other => say(word, format!("{other:?}")),
        }
    }
    Ok(())
}

fn warm() -> Outcome {
    let library = library()?;
    let session = Session::start("warm", &library)?;
    let early = session.agent_metadata().map_or_else(|error| error.to_string(), |_| "metadata".to_owned());
    say("before", early);
    say("dram", session.memory_kinds()?.contains(&MemoryKind::Dram));
    session.create_backend()?;
    let own = CheckedMetadata::decode(&session.agent_metadata()?, Some("warm"))?;
    say("sections", own.parsed().sections.len());
    say("twice", session.create_backend().map_or_else(|error| error.to_string(), |()| "created".to_owned()));
    say("version", library.version().to_string().starts_with(['1', '2', '>']));
    Ok(())
}

fn late() -> Outcome {
    let session = Session::start("late", &library()?)?;
    if let Some(transports) = setting("LATER").filter(|transports| !transports.is_empty()) {
        // SAFETY: the session's thread waits for a command; this process runs no other code.
        #[allow(unsafe_code)] // what is being tested is the unsafe function
        unsafe {
            nixl_connect::environment::set([("UCX_TLS", transports)]);
        }
    }
    session.create_backend()?;
    let own = CheckedMetadata::decode(&session.agent_metadata()?, None)?;
    say("address", own.parsed().connections.iter().map(|connection| connection.address.len()).sum::<usize>());
    Ok(())
}
