//! A source that sends sound chunks with wrong digests in them, which no real one does. It is this test binary again, as
//! the test `faulty_source`, because NIXL belongs into a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Instant;

use nixl_connect::{Library, RdmaMetadata, Sender, Session, exit_now};
use transfer_agent::protocol::entry::{Entry, EntryKind, RelativePath, Time};
use transfer_agent::protocol::{StreamOptions, WorkerName};
use transfer_agent::wire::{FrameWriter, encoded_entry};
use transfer_agent::{digest, manifest};

use super::Outcome;
use super::process::{PATIENCE, nixl};

/// The content that is sent, and the one that a wrong digest is of.
pub const CONTENT: &[u8] = b"sent";
pub const OTHER: &[u8] = b"else";
/// The name of its NIXL agent.
const NAME: &str = "faulty-source";

/// The process, seen from the test.
pub struct FaultySource {
    /// What the target is told about it.
    pub metadata: String,
    pub name: WorkerName,
    input: ChildStdin,
    child: Child,
}

impl FaultySource {
    /// Starts it. It sends a manifest and one file's content to `offer`, and after [`FaultySource::go_on`] the rest, with
    /// the digest of other bytes where `fault` says: in the `file`'s end, or for the `whole`.
    pub fn start(stream: StreamOptions, offer: &str, fault: &str) -> Outcome<Self> {
        let (library, plugins) = nixl();
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", "faulty_source", "--ignored", "--nocapture"])
            .env_clear()
            .env("FAULT", fault)
            .env("SLOTS", stream.in_flight.to_string())
            .env("CHUNK", stream.chunk_size.to_string())
            .env("LIBRARY", library)
            .env("NIXL_PLUGIN_DIR", plugins)
            .env("UCX_TLS", nixl_connect::environment::transports("tcp"))
            .env("UCX_NET_DEVICES", "lo")
            .env("UCX_ERROR_SIGNALS", "")
            .env("UCX_MEM_MMAP_HOOK_MODE", "reloc")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no pipe")?;
        let input = child.stdin.take().ok_or("no pipe")?;
        // From here on its end is ours, whatever fails.
        let mut source = Self { metadata: String::new(), name: WorkerName(NAME.into()), input, child };
        writeln!(source.input, "{offer}")?;
        for line in BufReader::new(output).lines() {
            if let Some((_, metadata)) = line?.split_once("@@") {
                source.metadata = metadata.to_owned();
                return Ok(source);
            }
        }
        Err("the source said nothing".into())
    }

    /// Lets it send what follows the file's content.
    pub fn go_on(&mut self) -> Outcome {
        Ok(writeln!(self.input, "go on")?)
    }
}

impl Drop for FaultySource {
    fn drop(&mut self) {
        // Gone already when the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body of the process.
pub fn run() {
    if let Err(error) = send() {
        eprintln!("the faulty source: {error}");
        exit_now(1);
    }
    exit_now(0)
}

fn setting(name: &str) -> Outcome<String> {
    std::env::var(name).map_err(|error| format!("{name}: {error}").into())
}

fn send() -> Outcome {
    let (library, plugins) = (PathBuf::from(setting("LIBRARY")?), PathBuf::from(setting("NIXL_PLUGIN_DIR")?));
    let session = Session::start(NAME, &Library::load(&library, &plugins)?)?;
    session.create_backend()?;
    let mut sender = Sender::open(&session, setting("SLOTS")?.parse()?, setting("CHUNK")?.parse()?)?;
    let mut offer = String::new();
    std::io::stdin().read_line(&mut offer)?;
    sender.connect(&RdmaMetadata::parse(offer.trim_end())?)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "@@{}", session.agent_metadata()?)?;
    out.flush()?;

    let mtime = Time { seconds: 1_700_000_000, nanoseconds: 0 };
    let size = CONTENT.len() as u64;
    let entries = [
        Entry { path: RelativePath(Vec::new()), kind: EntryKind::Directory { mode: 0o755, mtime } },
        Entry {
            path: RelativePath(b"f".into()),
            kind: EntryKind::File { size, mode: 0o640, mtime, inode: 1 },
        },
    ];
    let algorithm = super::options(1, 1).algorithm;
    let digest_of = |bytes| digest::of(algorithm, bytes).bytes;
    let fault = setting("FAULT")?;
    let file = digest_of(if fault == "file" { OTHER } else { CONTENT });
    // Of the file's digest as it is sent, so that only the one or the other is wrong.
    let of_whole = if fault == "whole" { digest_of(OTHER) } else { file.clone() };
    let whole = manifest::digest(algorithm, &entries, |_| Some(&of_whole)).ok_or("no digest")?.bytes;

    let totals = manifest::totals(&entries);
    let texts = entries.each_ref().map(encoded_entry);
    let mut slot = sender.slot(Instant::now() + PATIENCE)?;
    let mut frames = FrameWriter::new(&mut slot, 0);
    let fits = frames.manifest(texts.iter().map(Vec::as_slice)) == entries.len()
        && frames.manifest_end(totals)
        && frames.data(1, 0, CONTENT);
    let length = frames.position();
    slot.send(length)?;
    std::io::stdin().read_line(&mut offer)?;
    let mut slot = sender.slot(Instant::now() + PATIENCE)?;
    let mut frames = FrameWriter::new(&mut slot, 0);
    let fits = fits && frames.file_end(1, size, &file) && frames.end(totals, &whole);
    let length = frames.position();
    if !fits {
        return Err("the frames do not fit into two chunks".into());
    }
    slot.send(length)?;
    // Fails when the target refuses, as it is meant to.
    if let Err(error) = sender.finish(Instant::now() + PATIENCE) {
        eprintln!("the faulty source: {error}");
    }
    Ok(())
}
