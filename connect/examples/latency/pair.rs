//! Starts the two ends of a pair, joins their pipes, and reads what they measured. Owns both processes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::Outcome;
use super::plan::Case;

/// Longest time for all cases of one pair.
const LONGEST: Duration = Duration::from_secs(180);

/// Which program an end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Rust,
    Python,
}

/// Killed and awaited, however its owner ends.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and was awaited.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the cases with these two ends. Gives each case's figures, in order.
pub fn run(passive: Side, active: Side, plan: &[Case]) -> Outcome<Vec<Vec<Duration>>> {
    let deadline = Instant::now() + LONGEST;
    let mut passive = start(command(passive, "passive", plan)?.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    // Nobody but the two holds the pipes between them, so that each notices the other's end.
    let (from, to) = (passive.0.stdout.take().ok_or("no pipe")?, passive.0.stdin.take().ok_or("no pipe")?);
    let mut active = start(command(active, "active", plan)?.stdin(from).stdout(to))?;
    let lines = lines([passive.0.stderr.take(), active.0.stderr.take()]);
    let (mut figures, mut others) = (Vec::new(), Vec::new());
    let left = || deadline.saturating_duration_since(Instant::now());
    while let Ok(line) = lines.recv_timeout(left()) {
        match line.strip_prefix("figures ").and_then(|line| line.split_once(' ')) {
            Some((_, numbers)) => {
                let numbers = numbers.split(' ').map(|number| number.parse().map(Duration::from_nanos));
                figures.push(numbers.collect::<Result<_, _>>()?);
            }
            None => others.push(line),
        }
    }
    // Both have closed their standard error, so both end now, unless the time is over.
    if left().is_zero()
        || !passive.0.wait()?.success()
        || !active.0.wait()?.success()
        || figures.len() != plan.len()
    {
        return Err(format!("an end failed, and said:\n{}", others.join("\n")).into());
    }
    Ok(figures)
}

fn start(command: &mut Command) -> Outcome<Owned> {
    let child = command.spawn();
    Ok(Owned(child.map_err(|error| format!("{}: {error}", command.get_program().display()))?))
}

/// What both write to standard error, line by line, until both have closed it.
fn lines(streams: [Option<ChildStderr>; 2]) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    for stream in streams.into_iter().flatten() {
        let sender = sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
    }
    receiver
}

fn command(side: Side, role: &str, plan: &[Case]) -> Outcome<Command> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = match side {
        Side::Rust => {
            let mut command = Command::new(std::env::current_exe()?);
            let tools = here.join("../.tools/nixl");
            let plugins = path("NIXL_TRANSFER_NIXL_PLUGINS", tools.join("plugins"));
            let library = path("NIXL_TRANSFER_NIXL_LIBRARY", tools.join("lib/libnixl_capi.so"));
            command.env_clear().env("NIXL_TRANSFER_NIXL_LIBRARY", library);
            command.env("NIXL_TRANSFER_NIXL_PLUGINS", &plugins).env("NIXL_PLUGIN_DIR", plugins);
            command
        }
        Side::Python => {
            let mut command = Command::new("python3");
            // Without what the host has installed, such as a real PyTorch.
            command.arg("-S").arg(here.join("examples/latency/end.py")).env_clear();
            command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
            command.env("PYTHONPATH", std::env::join_paths(python_path())?);
            command
        }
    };
    command
        .env("UCX_TLS", nixl_connect::environment::transports("tcp"))
        .env("UCX_NET_DEVICES", "lo")
        .env("UCX_ERROR_SIGNALS", "");
    command.arg(role).args(plan.iter().map(Case::to_string)).stderr(Stdio::piped());
    Ok(command)
}

fn path(variable: &str, otherwise: PathBuf) -> PathBuf {
    std::env::var_os(variable).map_or(otherwise, PathBuf::from)
}

/// Where Dynamo's module and what it imports lie: `cargo xtask tools` puts them there.
fn python_path() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    vec![here.join("../.tools/python/nixl-1.5.1"), here.join("tests/interop/standins")]
}

/// Whether Python ends can be started.
pub fn has_python() -> bool {
    python_path().iter().all(|path| path.is_dir())
}
