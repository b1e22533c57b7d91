//! How the two ends of an example are started: NIXL from `NIXL_TRANSFER_NIXL_LIBRARY` and `NIXL_TRANSFER_NIXL_PLUGINS`, else
//! from `.tools/nixl` of the checkout; UCX tcp on the loopback device. A benchmark may put the ends into namespaces of their
//! own: `NIXL_TRANSFER_SEND_WITH` and `NIXL_TRANSFER_RECEIVE_WITH` are commands to start an end with, and
//! `NIXL_TRANSFER_DEVICE` is the network device of both, and `NIXL_TRANSFER_TRANSPORTS` what UCX may use instead of tcp.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub fn start(role: &str, arguments: &[String]) -> io::Result<Child> {
    let with = std::env::var(format!("NIXL_TRANSFER_{}_WITH", role.to_uppercase())).unwrap_or_default();
    let program = std::env::current_exe()?;
    let mut words = with.split_whitespace();
    let mut command = match words.next() {
        Some(first) => {
            let mut command = Command::new(first);
            command.args(words).arg(&program);
            command
        }
        None => Command::new(&program),
    };
    let (library, plugins) = nixl();
    command.arg(role).args(arguments).env_clear().env("NIXL_TRANSFER_NIXL_LIBRARY", library);
    command.env("NIXL_TRANSFER_NIXL_PLUGINS", &plugins).env("NIXL_PLUGIN_DIR", &plugins);
    let device = std::env::var_os("NIXL_TRANSFER_DEVICE").unwrap_or_else(|| "lo".into());
    let transports = std::env::var("NIXL_TRANSFER_TRANSPORTS").unwrap_or_else(|_| "tcp".into());
    command.env("UCX_TLS", nixl_connect::environment::transports(&transports)).env("UCX_NET_DEVICES", device);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
}

/// The library and the directory of plugins.
pub fn nixl() -> (PathBuf, PathBuf) {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/nixl");
    let path = |variable: &str, otherwise: &str| {
        std::env::var_os(variable).map_or(tools.join(otherwise), PathBuf::from)
    };
    (path("NIXL_TRANSFER_NIXL_LIBRARY", "lib/libnixl_capi.so"), path("NIXL_TRANSFER_NIXL_PLUGINS", "plugins"))
}
