//! Our side as a process: the example `peer`, or the role `child` that holds several operations and does as it is told.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::process::Process;
use crate::Outcome;

/// UCX patches the functions that map memory, for caches of registrations that tcp does not have, and spends nearly half a
/// second of CPU on it in each process. With so many processes that is most of their time.
pub const UNHOOKED: (&str, &str) = ("UCX_MEM_MMAP_HOOK_MODE", "none");

/// The example `peer` with these arguments.
pub fn peer(arguments: &str) -> Outcome<Process> {
    peer_with(arguments, &[UNHOOKED])
}

/// The same, with more in its environment.
pub fn peer_with(arguments: &str, settings: &[(&str, &str)]) -> Outcome<Process> {
    let mut command = environment(Command::new(example()?))?;
    command.args(arguments.split_whitespace()).envs(settings.iter().copied());
    Process::start(&format!("peer {arguments}"), &mut command, None)
}

/// A process with connectors and operations, each by name. The commands stand in `child.rs`.
pub struct Ours(Process);

impl Ours {
    pub fn start() -> Outcome<Self> {
        let mut command = environment(Command::new(std::env::current_exe()?))?;
        command.args(["--exact", "child", "--ignored", "--nocapture"]).env(UNHOOKED.0, UNHOOKED.1);
        Ok(Self(Process::start("the child", &mut command, Some("@@"))?))
    }

    /// Gives a command and takes its answer.
    pub fn ask(&mut self, command: &str) -> Outcome<Value> {
        self.0.say(command)?;
        self.0.json()
    }

    /// A command that must go well.
    pub fn tell(&mut self, command: &str) -> Outcome<Value> {
        let answer = self.ask(command)?;
        if answer.get("error").is_none() { Ok(answer) } else { Err(self.failure(command, &answer)) }
    }

    /// A command that offers memory; gives the metadata.
    pub fn offer(&mut self, command: &str) -> Outcome<String> {
        let answer = self.tell(command)?;
        Ok(answer["metadata"].as_str().ok_or_else(|| self.failure(command, &answer))?.to_owned())
    }

    pub fn status(&mut self, operation: &str) -> Outcome<String> {
        let answer = self.tell(&format!("status {operation}"))?;
        Ok(answer["status"].as_str().ok_or_else(|| self.failure("status", &answer))?.to_owned())
    }

    /// A command that must be refused with this error; gives the message.
    pub fn refuses(&mut self, command: &str, error: &str) -> Outcome<String> {
        let answer = self.ask(command)?;
        match answer["message"].as_str() {
            Some(message) if answer["error"] == error => Ok(message.to_owned()),
            _ => Err(self.failure(command, &answer)),
        }
    }

    /// An active operation that must end with the news that its peer is gone, at once or soon; gives the message.
    pub fn loses(&mut self, operation: &str, command: &str) -> Outcome<String> {
        let since = Instant::now();
        let mut answer = self.ask(command)?;
        if answer.get("error").is_none() {
            answer = self.ask(&format!("wait {operation} 10000"))?;
        }
        let error = answer["error"].as_str().unwrap_or_default();
        if !["PeerLost", "StalePeer"].contains(&error) {
            return Err(self.failure(command, &answer));
        }
        assert!(since.elapsed() < Duration::from_secs(10), "{error} took {:?}", since.elapsed());
        Ok(answer["message"].as_str().unwrap_or_default().to_owned())
    }

    /// The operation is DONE now, or within a long time, with this sum over its memory.
    pub fn is_done(&mut self, operation: &str, sha256: &str) -> Outcome {
        self.0.say(&format!("wait {operation} 60000"))?;
        self.0.is_done(sha256)
    }

    pub fn kill(&mut self) -> Outcome {
        self.0.kill()
    }

    pub fn stop(&self) -> Outcome {
        self.0.stop()
    }

    fn failure(&self, command: &str, answer: &Value) -> Box<dyn std::error::Error> {
        let command: String = command.chars().take(60).collect();
        self.0.failure(&format!("answered {command:?} with {answer}"))
    }
}

/// What both need, and nothing else of this process's environment.
fn environment(mut command: Command) -> Outcome<Command> {
    let (library, plugins) = nixl()?;
    command.env_clear();
    command.env("NIXL_TRANSFER_NIXL_LIBRARY", library).env("NIXL_TRANSFER_NIXL_PLUGINS", &plugins);
    command
        .env("NIXL_PLUGIN_DIR", plugins)
        .env("UCX_TLS", nixl_connect::environment::transports("tcp"))
        .env("UCX_NET_DEVICES", "lo");
    Ok(command)
}

/// Where NIXL is; without it the tests fail instead of passing silently.
fn nixl() -> Outcome<(PathBuf, PathBuf)> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/nixl");
    let path = |variable: &str, otherwise: &str| {
        let path = std::env::var_os(variable).map_or_else(|| tools.join(otherwise), PathBuf::from);
        path.canonicalize().map_err(|error| {
            format!("NIXL is needed at {} ({error}): run `cargo xtask tools`", path.display())
        })
    };
    Ok((
        path("NIXL_TRANSFER_NIXL_LIBRARY", "lib/libnixl_capi.so")?,
        path("NIXL_TRANSFER_NIXL_PLUGINS", "plugins")?,
    ))
}

/// Cargo builds examples with all tests, but not for `--test interop` alone; an old one would test old code.
fn example() -> Outcome<PathBuf> {
    let tests = std::env::current_exe()?;
    let profile = tests.parent().and_then(Path::parent).ok_or("the tests are in no target directory")?;
    let example = profile.join("examples/peer");
    let built = std::fs::metadata(&example).and_then(|file| file.modified()).ok();
    // What was changed after these tests were built is in neither.
    let until = tests.metadata()?.modified()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for source in ["src", "examples/peer.rs", "examples/peer"] {
        if built < newest(&root.join(source), until)? {
            let fault = if built.is_some() { "is older than its sources" } else { "is missing" };
            let wanted = "run `cargo build -p nixl-connect --example peer`";
            return Err(format!("the example peer {fault}: {wanted}").into());
        }
    }
    Ok(example)
}

/// When the file, or the newest file in the directory, was changed last before then.
fn newest(path: &Path, until: SystemTime) -> Outcome<Option<SystemTime>> {
    if path.is_file() {
        return Ok(Some(path.metadata()?.modified()?).filter(|time| *time <= until));
    }
    let mut latest = None;
    for entry in std::fs::read_dir(path)? {
        latest = latest.max(newest(&entry?.path(), until)?);
    }
    Ok(latest)
}
