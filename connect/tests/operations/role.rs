//! What the processes do: a role by environment, commands as lines on standard input, answers as lines that begin with
//! `@@`, failures among them with `!`, a name and a class. They end with `exit_now`.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use nixl_connect::{Library, MemoryError, MetadataError, OperationError, SessionError, exit_now};

use crate::{Outcome, desk, rogue, series};

pub fn run() {
    let outcome = match std::env::var("ROLE").as_deref() {
        Ok("desk") => desk::run(),
        Ok("series") => series::run(),
        Ok("rogue") => rogue::run(),
        Ok("tasks") => crate::tasks::run(false),
        Ok("thread-pool") => crate::tasks::run(true),
        other => Err(format!("no such role: {other:?}").into()),
    };
    if let Err(error) = &outcome {
        say(&format!("!Mistake {error}"));
    }
    exit_now(i32::from(outcome.is_err()))
}

/// Why a command failed.
pub struct Failure(String);

pub type Answer<T = String> = Result<T, Failure>;

impl From<OperationError> for Failure {
    fn from(error: OperationError) -> Self {
        Self(format!("{} {:?} {error}", error.name(), error.class()))
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        OperationError::Session(error).into()
    }
}

impl From<MetadataError> for Failure {
    fn from(error: MetadataError) -> Self {
        Self(format!("{} {error}", error.name()))
    }
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        mistake(error)
    }
}

/// A fault of the test itself.
pub fn mistake(what: impl std::fmt::Display) -> Failure {
    Failure(format!("Mistake {what}"))
}

pub fn say(answer: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "@@{answer}").and_then(|()| out.flush()).is_err() {
        exit_now(3);
    }
}

/// Answers each line of the input until it ends.
pub fn obey(mut command: impl FnMut(&[&str]) -> Answer) -> Outcome {
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        match command(&words) {
            Ok(answer) => say(&answer),
            Err(Failure(failure)) => say(&format!("!{failure}")),
        }
    }
    Ok(())
}

pub fn library() -> Outcome<Library> {
    let (library, plugins) = (std::env::var("LIBRARY")?, std::env::var("NIXL_PLUGIN_DIR")?);
    Ok(Library::load(Path::new(&library), Path::new(&plugins))?)
}

pub fn after(milliseconds: &str) -> Answer<Instant> {
    Ok(Instant::now() + Duration::from_millis(milliseconds.parse().map_err(mistake)?))
}
