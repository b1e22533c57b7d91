//! One end as a process: started, given commands by lines, stopped, killed, and always ended.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::Outcome;

/// Generous: the machine may be busy with other tests, or the code be slow with a sanitizer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What the processes get of this one's environment; the rest of it must not change what UCX does.
const INHERITED: [&str; 2] = ["ASAN_OPTIONS", "UCX_MEM_EVENTS"];

pub struct Process {
    role: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

/// Where NIXL is; without it the tests fail instead of passing silently.
fn nixl() -> Result<(PathBuf, PathBuf), String> {
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

impl Process {
    /// A holder of operations, see `desk.rs`.
    pub fn desk() -> Outcome<Self> {
        Self::start("desk", "tcp")
    }

    /// Two of them, which start at the same time.
    pub fn desks() -> Outcome<[Self; 2]> {
        Ok([Self::desk()?, Self::desk()?])
    }

    pub fn start(role: &str, transports: &str) -> Outcome<Self> {
        let (library, plugins) = nixl()?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env_clear()
            .envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env("ROLE", role)
            .env("LIBRARY", library)
            .env("NIXL_PLUGIN_DIR", plugins)
            .env("UCX_TLS", nixl_connect::environment::transports(transports))
            .env("UCX_NET_DEVICES", "lo")
            .env("UCX_ERROR_SIGNALS", "")
            .env("UCX_LOG_FILE", "stderr")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("the child has no pipe")?;
        let (said, lines) = mpsc::channel();
        // Ends with the child's output.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some((_, marked)) = line.split_once("@@")
                    && said.send(marked.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Ok(Self { role: role.to_owned(), input: child.stdin.take(), child, lines })
    }

    pub fn say(&mut self, line: &str) -> Outcome {
        let input = self.input.as_mut().ok_or("its input is closed")?;
        writeln!(input, "{line}").map_err(|error| format!("{} does not listen: {error}", self.role).into())
    }

    pub fn line(&mut self) -> Outcome<String> {
        let line = self.lines.recv_timeout(PATIENCE);
        line.map_err(|error| format!("{} said nothing more: {error}", self.role).into())
    }

    /// Gives a command that must go well, and takes its answer.
    pub fn tell(&mut self, command: &str) -> Outcome<String> {
        self.say(command)?;
        let answer = self.line()?;
        if answer.starts_with('!') {
            Err(format!("{}: {command}: {answer}", self.role).into())
        } else {
            Ok(answer)
        }
    }

    /// Gives a command that must be answered so.
    pub fn answers(&mut self, command: &str, expected: &str) -> Outcome {
        let answer = self.tell(command)?;
        if answer == expected {
            return Ok(());
        }
        Err(format!("{}: {command}: {answer:?} instead of {expected:?}", self.role).into())
    }

    /// Gives a command that must fail with this name and class of error; gives its message.
    pub fn refuses(&mut self, command: &str, error: &str) -> Outcome<String> {
        self.say(command)?;
        let answer = self.line()?;
        match answer.strip_prefix('!').and_then(|answer| answer.strip_prefix(error)) {
            Some(message) => Ok(message.trim_start().to_owned()),
            None => Err(format!("{}: {command}: {answer:?} instead of {error}", self.role).into()),
        }
    }

    /// Asks again and again until the answer is this one.
    pub fn comes_to(&mut self, command: &str, expected: &str) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.tell(command)?;
            if answer == expected {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("{}: {command}: still {answer:?}, not {expected:?}", self.role).into());
            }
        }
    }

    /// Makes memory and offers it by an operation of this kind, both under the name of the kind. Gives the metadata.
    pub fn offer(&mut self, kind: &str, sizes: &str) -> Outcome<String> {
        self.make(kind, sizes)?;
        self.tell(&format!("{kind} {kind} {kind}"))?;
        self.tell(&format!("metadata {kind}"))
    }

    /// Makes memory and begins an operation of this kind on it, both under the name of the kind.
    pub fn begin(&mut self, kind: &str, sizes: &str, metadata: &str) -> Outcome {
        self.make(kind, sizes)?;
        self.answers(&format!("{kind} {kind} {kind} {metadata}"), "ok")
    }

    /// Makes memory for an operation of this kind: with zeros if its bytes will come from the peer.
    pub fn make(&mut self, kind: &str, sizes: &str) -> Outcome {
        let seed = if matches!(kind, "readable" | "write") { 1 } else { 0 };
        self.answers(&format!("memory {kind} {sizes} {seed}"), "ok")
    }

    /// The operation of this name completes, with the right bytes.
    pub fn completes(&mut self, operation: &str) -> Outcome {
        self.answers(&format!("wait {operation} 30000"), "ok")?;
        self.answers(&format!("status {operation}"), "DONE")?;
        self.answers(&format!("results {operation} 1"), "equal")
    }

    /// The session comes to hold nothing any more, and has heard nothing that was not meant for it.
    pub fn holds_nothing(&mut self) -> Outcome {
        self.comes_to("statistics", "endpoints=0 regions=0 in_flight=0 foreign=0")
    }

    pub fn kill(&mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Returns when all its threads have stopped: the signal alone is obeyed when a busy machine has time for it.
    pub fn stop(&self) -> Outcome {
        let pid = self.pid()?;
        kill_process(pid, Signal::STOP)?;
        // It stops or it has ended; there is nothing else that it can do.
        match waitpid(Some(pid), WaitOptions::UNTRACED)? {
            Some((_, status)) if status.stopped() => Ok(()),
            other => Err(format!("{} did not stop: {other:?}", self.role).into()),
        }
    }

    pub fn go_on(&self) -> Outcome {
        Ok(kill_process(self.pid()?, Signal::CONT)?)
    }

    fn pid(&self) -> Outcome<Pid> {
        Ok(i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).ok_or("no pid")?)
    }

    /// With the end of its input the child says nothing more and exits with 0.
    pub fn ends_well(mut self) -> Outcome {
        self.input = None;
        match self.lines.recv_timeout(PATIENCE) {
            Err(mpsc::RecvTimeoutError::Disconnected) => {}
            other => return Err(format!("{} did not end: {other:?}", self.role).into()),
        }
        // Its output has ended, so it is about to exit.
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", self.role).into()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL ends a stopped process too; one that has ended already is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
