//! Dynamo's Python as a process: `peer.py`, `owner.py` and `validate.py` on one of the two versions of NIXL.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::ours::UNHOOKED;
use super::process::Process;
use crate::Outcome;

/// The NIXL of a Python peer. Ours is always the one that the crate needs.
#[derive(Clone, Copy)]
pub enum Nixl {
    V1_5_1,
    V1_4_1,
}

/// `peer.py` with these arguments.
pub fn peer(nixl: Nixl, arguments: &str) -> Outcome<Process> {
    let mut command = python(nixl, "peer.py")?;
    command.args(arguments.split_whitespace());
    Process::start(&format!("peer.py {arguments} (NIXL {})", nixl.version()), &mut command, None)
}

/// `owner.py` with a verb and sizes: memory with canaries around it, for whoever uses it in pieces.
pub fn owner(nixl: Nixl, arguments: &str) -> Outcome<Process> {
    let mut command = python(nixl, "owner.py")?;
    command.args(arguments.split_whitespace());
    Process::start(&format!("owner.py {arguments} (NIXL {})", nixl.version()), &mut command, None)
}

/// `validate.py`: a line for each `RdmaMetadata` that it is given.
pub fn validate() -> Outcome<Process> {
    Process::start("validate.py", &mut python(Nixl::V1_5_1, "validate.py")?, None)
}

fn python(nixl: Nixl, script: &str) -> Outcome<Command> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    let module = site(nixl)?;
    let mut command = Command::new("python3");
    // Nothing that the host has installed gets in the way, and nothing is written beside the scripts.
    command.args(["-S", "-B"]).arg(scripts.join(script));
    // A python3 that chooses among several looks at more than PATH; what would change its modules is taken away.
    for (name, _) in std::env::vars_os() {
        let changes_the_peer = |name: &str| ["PYTHON", "UCX_", "NIXL_"].iter().any(|it| name.starts_with(it));
        if name.to_str().is_some_and(changes_the_peer) {
            command.env_remove(name);
        }
    }
    command.env("PYTHONPATH", std::env::join_paths([module, scripts.join("standins")])?);
    command
        .env("UCX_TLS", nixl_connect::environment::transports("tcp"))
        .env("UCX_NET_DEVICES", "lo")
        .env("UCX_ERROR_SIGNALS", "");
    command.env(UNHOOKED.0, UNHOOKED.1);
    Ok(command)
}

/// Where the module and its NIXL are; without them the tests fail instead of passing silently.
fn site(nixl: Nixl) -> Outcome<PathBuf> {
    let tools = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/python");
    let peers = std::env::var_os("NIXL_TRANSFER_PYTHON_PEERS").map_or_else(tools, PathBuf::from);
    let site = peers.join(format!("nixl-{}", nixl.version()));
    site.canonicalize().map_err(|error| {
        format!("a Python peer is needed at {} ({error}): run `cargo xtask tools`", site.display()).into()
    })
}

impl Nixl {
    fn version(self) -> &'static str {
        match self {
            Self::V1_5_1 => "1.5.1",
            Self::V1_4_1 => "1.4.1",
        }
    }
}
