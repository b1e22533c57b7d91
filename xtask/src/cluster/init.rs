//! The first process of a space: prepares mounts and settings, starts the programs of its plan, starts one that ended again,
//! and waits for orphans, as an init does. Everything here happens inside the space.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::stdin;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{WaitOptions, wait};
use serde_json::Value;

use super::plan::{After, Mount, Plan, Program};
use super::space::SOON;
use crate::exec;

/// What it says when the space is there.
pub const MADE: &str = "made";

/// `cargo xtask cluster init PLAN`: not for people.
pub fn run(plan: &Path) -> Result<()> {
    println!("{MADE}");
    // Whoever made this space writes it down before it says go. If it dies before, this is an end of file.
    let mut word = String::new();
    stdin().read_line(&mut word)?;
    if word.trim() != "go" {
        bail!("nobody wants this space");
    }
    let text = fs::read(plan).with_context(|| format!("cannot read {}", plan.display()))?;
    let plan = Plan::parse(&serde_json::from_slice::<Value>(&text)?).context("the plan is damaged")?;
    prepare(&plan)?;
    let mut running = BTreeMap::new();
    for program in &plan.programs {
        if let Some(after) = &program.after {
            wait_for(after);
        }
        running.insert(start(program)?, program);
    }
    loop {
        let (pid, status) = match wait(WaitOptions::empty()) {
            Ok(Some(ended)) => ended,
            Ok(None) | Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error).context("nothing runs here any more"),
        };
        if let Some(program) = running.remove(&pid.as_raw_nonzero().get()) {
            eprintln!("{} ended ({:?}); it is started again", program.name, status.exit_status());
            // Not a synchronisation: what ends at once is not to be started a thousand times a second.
            thread::sleep(Duration::from_secs(1));
            running.insert(start(program)?, program);
        }
    }
}

fn prepare(plan: &Plan) -> Result<()> {
    rustix::system::sethostname(plan.hostname.as_bytes()).context("cannot set the host's name")?;
    exec::output("ip", &["link", "set", "lo", "up"])?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot switch forwarding on")?;
    // Kubelets mount into pods what appears later: within this space mounts are shared, out of it none go.
    exec::output("mount", &["--make-rshared", "/"])?;
    for mount in &plan.mounts {
        match mount {
            Mount::Empty { at } => exec::output("mount", &["-t", "tmpfs", "tmpfs", at])?,
            Mount::Bind { what, at } => exec::output("mount", &["--bind", what, at])?,
        };
    }
    for (place, value) in &plan.pretended {
        pretend(Path::new(place), value)?;
    }
    Ok(())
}

/// A kubelet wants settings of the kernel that hold for the whole machine. It finds files here that have them; the machine's
/// stay as they are.
fn pretend(place: &Path, value: &str) -> Result<()> {
    if !place.exists() {
        return Ok(());
    }
    let name = place.to_string_lossy().replace('/', "-");
    let file = Path::new("/run").join(format!("settings{name}"));
    fs::write(&file, format!("{value}\n"))?;
    exec::output("mount", &["--bind", &file.to_string_lossy(), &place.to_string_lossy()]).map(drop)
}

fn start(program: &Program) -> Result<i32> {
    let log = OpenOptions::new().create(true).append(true).open(&program.log);
    let log: File = log.with_context(|| format!("cannot open {}", program.log))?;
    let mut command = Command::new(&program.command[0]);
    command.args(&program.command[1..]).env_clear().envs(program.environment.iter().cloned());
    command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = command.spawn().with_context(|| format!("cannot start {}", program.name))?;
    Ok(child.id().try_into()?)
}

/// Gives up after a while: the program says better what it lacks.
fn wait_for(after: &After) {
    let deadline = Instant::now() + SOON;
    let there = || match after {
        After::File(path) => Path::new(path).exists(),
        After::Server(at) => at
            .parse::<SocketAddr>()
            .is_ok_and(|at| TcpStream::connect_timeout(&at, Duration::from_secs(1)).is_ok()),
    };
    while !there() && Instant::now() < deadline {
        // Polled: neither etcd nor containerd tells anybody that it is there.
        thread::sleep(Duration::from_millis(100));
    }
}
