//! A peer's memory in pieces (R), by name, on one session for all:
//!
//! `open R SLOTS SIZE METADATA` · `get R OFFSET LENGTH PIECE MILLISECONDS` (reads in pieces; gives the sum) · `put …` (writes
//! the pattern) · `back …` (as `get`, from a Writable) · `fill R OFFSET LENGTH BYTE` · `flush|complete R MILLISECONDS` · `abort R` (while a read of all of it waits) · `gone R` · `session` (its
//! figures) · `end` (the session)

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nixl_connect::{Library, RdmaMetadata, RemoteError, RemoteMemory, Session, Staging};
use serde_json::{Value, json};

use super::contents::{byte, sha256};
use super::held::{Answer, Failure, after, mistake};

#[derive(Default)]
pub struct Remotes {
    session: Option<Session>,
    open: HashMap<String, RemoteMemory>,
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        Self(error.name(), error.to_string())
    }
}

fn number<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Answer<T> {
    text.parse().map_err(mistake)
}

/// The pieces of a range: where each begins, and its length.
fn pieces(offset: &str, length: &str, piece: &str) -> Answer<Vec<(u64, usize)>> {
    let (offset, length, piece): (u64, u64, usize) = (number(offset)?, number(length)?, number(piece)?);
    let starts = (0..length).step_by(piece);
    Ok(starts.map(|at| (offset.saturating_add(at), piece.min((length - at) as usize))).collect())
}

fn patterned(at: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|place| byte(at.wrapping_add(place))).collect()
}

impl Remotes {
    pub fn obey(&mut self, library: &Library, words: &[&str]) -> Answer<Value> {
        match *words {
            ["open", name, slots, slot_size, metadata] => {
                let remote = RdmaMetadata::parse(metadata)?;
                let staging = Staging { slots: number(slots)?, slot_size: number(slot_size)? };
                let memory = RemoteMemory::open(self.session(library)?, remote, staging, after("10000")?)?;
                let devices: Vec<String> = memory.devices().iter().map(ToString::to_string).collect();
                let said =
                    json!({"length": memory.len(), "kind": memory.kind().to_string(), "devices": devices});
                self.open.insert(name.to_owned(), memory);
                return Ok(said);
            }
            ["get" | "back", name, offset, length, piece, milliseconds] => {
                let memory = self.memory(name)?;
                let mut read = Vec::new();
                for (at, length) in pieces(offset, length, piece)? {
                    let mut buffer = vec![0; length];
                    let deadline = after(milliseconds)?;
                    if words[0] == "get" {
                        memory.read(at, &mut buffer, deadline)?;
                    } else {
                        memory.read_back(at, &mut buffer, deadline)?;
                    }
                    read.extend(buffer);
                }
                return Ok(json!({"sha256": sha256([read.as_slice()])}));
            }
            ["put", name, offset, length, piece, milliseconds] => {
                for (at, length) in pieces(offset, length, piece)? {
                    self.memory(name)?.write(at, &patterned(at, length), after(milliseconds)?)?;
                }
            }
            ["fill", name, offset, length, value] => {
                let bytes = vec![number(value)?; number(length)?];
                self.memory(name)?.write(number(offset)?, &bytes, after("10000")?)?;
            }
            ["flush", name, milliseconds] => self.memory(name)?.flush(after(milliseconds)?)?,
            ["complete", name, milliseconds] => {
                let memory = self.open.remove(name).ok_or_else(|| mistake(name))?;
                memory.complete(after(milliseconds)?)?;
            }
            ["abort", name] => return self.abort(name),
            ["gone", name] => drop(self.open.remove(name).ok_or_else(|| mistake(name))?),
            ["session"] => {
                let now = self.session(library)?.statistics().map_err(mistake)?;
                let holds = [now.endpoints, now.regions, now.in_flight];
                return Ok(
                    json!({"holds": holds, "transfers": now.transfers, "abandoned": now.abandoned_bytes}),
                );
            }
            ["end"] => {
                let session = self.session.take().ok_or_else(|| mistake("no session"))?;
                session.close(after("10000")?).map_err(mistake)?;
            }
            _ => return Err(mistake(format!("no such command: {}", words.join(" ")))),
        }
        Ok(json!({}))
    }

    /// The abort comes when NIXL has something of the read that it is to end.
    fn abort(&mut self, name: &str) -> Answer<Value> {
        let session = self.session.as_ref().ok_or_else(|| mistake("no session"))?;
        let memory = self.open.get_mut(name).ok_or_else(|| mistake(name))?;
        let (handle, length) = (memory.abort_handle(), memory.len() as usize);
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let read = memory.read(0, &mut vec![0; length], Instant::now() + Duration::from_secs(50));
                (read, Instant::now())
            });
            let deadline = Instant::now() + Duration::from_secs(20);
            while session.statistics().map_err(mistake)?.in_flight == 0 && Instant::now() < deadline {
                std::thread::yield_now();
            }
            let aborted = Instant::now();
            handle.abort();
            let (read, ended) = reading.join().map_err(|_| mistake("the reader panicked"))?;
            let late = ended.saturating_duration_since(aborted);
            if late > Duration::from_secs(5) {
                return Err(mistake(format!("the wait went on for {late:?}")));
            }
            Ok(read.map(|()| json!({}))?)
        })
    }

    fn session(&mut self, library: &Library) -> Answer<&Session> {
        if self.session.is_none() {
            let session =
                Session::start(&format!("remote-{}", std::process::id()), library).map_err(mistake)?;
            session.create_backend().map_err(mistake)?;
            self.session = Some(session);
        }
        self.session.as_ref().ok_or_else(|| mistake("no session"))
    }

    fn memory(&mut self, name: &str) -> Answer<&mut RemoteMemory> {
        self.open.get_mut(name).ok_or_else(|| mistake(name))
    }
}
