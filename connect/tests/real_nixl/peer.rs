//! One end as a process: started, talked to by lines, and always ended.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Generous: the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where NIXL is; without it the tests fail instead of passing silently.
pub fn nixl() -> Result<(PathBuf, PathBuf), String> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/nixl");
    let path = |variable: &str, otherwise: &str| {
        let path = std::env::var_os(variable).map_or_else(|| tools.join(otherwise), PathBuf::from);
        path.canonicalize().map_err(|error| {
            format!("NIXL is needed at {} ({error}): run `cargo xtask tools`", path.display())
        })
    };
    Ok((
        path("NIXL_TRANSFER_NIXL_LIBRARY", ".nixl_cu12.mesonpy.libs/libnixl_capi.so")?,
        path("NIXL_TRANSFER_NIXL_PLUGINS", "nixl_cu12.libs/nixl")?,
    ))
}

pub struct Peer {
    role: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Peer {
    pub fn start(role: &str, settings: &[(&str, &str)]) -> Result<Self, Box<dyn Error>> {
        let (library, plugins) = nixl()?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env_clear()
            .env("ROLE", role)
            .env("LIBRARY", library)
            .env("NIXL_PLUGIN_DIR", plugins)
            .env("UCX_TLS", nixl_connect::environment::transports("tcp"))
            .env("UCX_NET_DEVICES", "lo")
            .env("UCX_ERROR_SIGNALS", "")
            // As the agent has it: a start costs a sixth of the default's time.
            .env("UCX_MEM_MMAP_HOOK_MODE", "reloc")
            .envs(settings.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no pipe")?;
        let (said, lines) = mpsc::channel();
        // Ends with the child's output.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some((_, said_line)) = line.split_once("@@")
                    && said.send(said_line.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Ok(Self { role: role.to_owned(), input: child.stdin.take(), child, lines })
    }

    /// The rest of the child's next line, which must begin with `word`.
    pub fn expect(&mut self, word: &str) -> Result<String, Box<dyn Error>> {
        let line = self
            .lines
            .recv_timeout(PATIENCE)
            .map_err(|error| format!("{} said no {word:?}: {error}", self.role))?;
        match line.split_once(' ') {
            Some((said, rest)) if said == word => Ok(rest.to_owned()),
            _ => Err(format!("{} said {line:?} instead of {word:?}", self.role).into()),
        }
    }

    pub fn say(&mut self, line: &str) -> Result<(), Box<dyn Error>> {
        Ok(writeln!(self.input.as_mut().ok_or("no pipe")?, "{line}")?)
    }

    pub fn kill(&mut self) -> Result<(), Box<dyn Error>> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub fn stop(&self) -> Result<(), Box<dyn Error>> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).ok_or("no pid")?;
        Ok(kill_process(pid, Signal::STOP)?)
    }

    /// The child says nothing more and exits with 0.
    pub fn ends_well(mut self) -> Result<(), Box<dyn Error>> {
        match self.lines.recv_timeout(PATIENCE) {
            Err(mpsc::RecvTimeoutError::Disconnected) => {}
            other => return Err(format!("{} did not end: {other:?}", self.role).into()),
        }
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", self.role).into()) }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // SIGKILL ends a stopped process too; one that has ended already is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Gives each end what the other offers.
pub fn exchange(receiver: &mut Peer, sender: &mut Peer) -> Result<(), Box<dyn Error>> {
    sender.say(&receiver.expect("offer")?)?;
    receiver.say(&sender.expect("agent")?)
}
