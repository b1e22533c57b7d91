//! Wheels from the index of the host's pip, by pinned digests and without their dependencies. They are only fetched:
//! nothing of them runs, and nothing is installed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::exec;
use crate::progress::Step;

/// Which Python's wheels are wanted.
#[derive(Clone, Copy, Debug)]
pub enum For {
    /// The python3 of this host, which will import them.
    Host,
    /// CPython 3.12, whatever the host has: only shared libraries are used, which are the same in the wheels for all.
    Any,
}

/// Fetches what the file `requirements` names into the directory `into`.
pub fn download(step: &mut Step, requirements: &Path, into: &Path, python: For) -> Result<Vec<PathBuf>> {
    exec::watched(&mut command(requirements, into, python)?, |line| {
        step.tick(line.filter(|line| line.contains("ownload")).unwrap_or("…").trim());
    })
    .context(
        "pip could not fetch the wheel (is the index reachable? `cargo xtask doctor` checks python3 and pip)",
    )?;
    let files = fs::read_dir(into)?.flatten().map(|entry| entry.path());
    let mut wheels: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "whl")).collect();
    wheels.sort();
    Ok(wheels)
}

fn command(requirements: &Path, into: &Path, python: For) -> Result<Command> {
    let architecture = env::consts::ARCH;
    if !["x86_64", "aarch64"].contains(&architecture) {
        bail!("NIXL has no wheel for {architecture}: x86_64 and aarch64 only");
    }
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "download", "--disable-pip-version-check", "--progress-bar=off", "--no-deps"]);
    command.args(["--require-hashes", "--only-binary=:all:"]);
    if let For::Any = python {
        command.args(["--python-version=3.12", "--implementation=cp"]);
        command.args(["--abi=cp312", "--abi=abi3", "--abi=none"]);
        for platform in ["manylinux_2_28", "manylinux2014", "manylinux2010"] {
            command.arg(format!("--platform={platform}_{architecture}"));
        }
    }
    command.arg("--requirement").arg(requirements).arg("--dest").arg(into);
    Ok(command)
}
