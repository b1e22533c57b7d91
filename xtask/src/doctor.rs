//! `cargo xtask doctor`: what this machine needs, what it has, and how to get the rest. Changes nothing.

use std::io::{IsTerminal, stdout};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::Result;
use rustix::process::{Resource, getrlimit};

use crate::exec::output;
use crate::paths;
use crate::progress::bytes;
use crate::tools;

/// What was found of one need.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    Good(String),
    /// Works without, worse.
    Poor(String, &'static str),
    /// Nothing works without.
    Missing(String, &'static str),
    /// `cargo xtask tools` (and so demo and test) will get it.
    Gettable(&'static str),
}

pub fn run() -> Result<ExitCode> {
    let mut table = Vec::new();
    table.push(("rustc 1.89+", at_least(&first_line("rustc", &["--version"]), (1, 89), "https://rustup.rs")));
    table.push(("cargo", present(first_line("cargo", &["--version"]), "https://rustup.rs")));
    let go = at_least(
        &first_line("go", &["version"]),
        (1, 26),
        "https://go.dev/dl (builds etcd and Kubernetes' programs)",
    );
    let own_control_plane = tools::kubebuilder_assets().is_some();
    table.push(("go 1.26+", if own_control_plane { optional(go) } else { go }));
    let python = first_line("python3", &["--version"]);
    table.push(("python3", host_python(python)));
    let pip = first_line("python3", &["-m", "pip", "--version"]);
    table.push(("pip", present(pip, "the system's package python3-pip")));
    table.push(("g++ with C++20", compiler()));
    table.push((
        "gcc",
        present(first_line("gcc", &["--version"]), "the system's C compiler (bindgen asks it for headers)"),
    ));
    table.push(("git", present(first_line("git", &["--version"]), "the system's package git")));
    table.push(("diff", present(first_line("diff", &["--version"]), "the system's package diffutils")));
    for (name, path) in tools::found() {
        let finding = path
            .map_or(Finding::Gettable("cargo xtask tools"), |path| Finding::Good(path.display().to_string()));
        table.push((name, finding));
    }
    table.push(("real cluster", cluster()));
    table.push(("memlock limit", memlock()));
    table.push(("free in /dev/shm", space(Path::new("/dev/shm"), 1 << 30)));
    table.push(("free in temporary files", space(&std::env::temp_dir(), 4 << 30)));
    if let Ok(cache) = paths::cache() {
        let existing = cache.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned();
        table.push(("free in the cache", space(&existing, 3 << 30)));
    }
    print(&table);
    let missing = table.iter().filter(|(_, finding)| matches!(finding, Finding::Missing(..))).count();
    println!(
        "{}",
        if missing == 0 { "Nothing required is missing.".to_owned() } else { format!("{missing} missing.") }
    );
    Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(table: &[(&str, Finding)]) {
    let colour = stdout().is_terminal();
    for (need, finding) in table {
        let (code, mark, text) = match finding {
            Finding::Good(found) => (32, "ok     ", found.clone()),
            Finding::Poor(found, remedy) => (33, "poor   ", format!("{found}: {remedy}")),
            Finding::Missing(found, remedy) => (31, "missing", format!("{found}: {remedy}")),
            Finding::Gettable(command) => (33, "to get ", format!("not here yet: {command}")),
        };
        let mark = if colour { format!("\x1b[{code}m{mark}\x1b[0m") } else { mark.to_owned() };
        println!("{need:<24} {mark}  {text}");
    }
}

fn first_line(program: &str, arguments: &[&str]) -> Result<String, String> {
    let text = output(program, arguments)
        .map_err(|error| format!("{error:#}").lines().next().unwrap_or("").to_owned())?;
    Ok(text.lines().next().unwrap_or("").to_owned())
}

fn present(found: Result<String, String>, remedy: &'static str) -> Finding {
    match found {
        Ok(text) => Finding::Good(text),
        Err(problem) => Finding::Missing(problem, remedy),
    }
}

fn optional(finding: Finding) -> Finding {
    match finding {
        Finding::Missing(found, remedy) => Finding::Poor(found, remedy),
        other => other,
    }
}

fn at_least(found: &Result<String, String>, wanted: (u32, u32), remedy: &'static str) -> Finding {
    match found {
        Ok(text) if version(text).is_some_and(|version| version >= wanted) => Finding::Good(text.clone()),
        Ok(text) | Err(text) => Finding::Missing(text.clone(), remedy),
    }
}

/// The first `major.minor` in a text such as `go version go1.26.8 linux/amd64`.
fn version(text: &str) -> Option<(u32, u32)> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|word| {
        let mut parts = word.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

/// Any Python gets NIXL and libclang; the other end of some tests runs in those that it has wheels for.
fn host_python(found: Result<String, String>) -> Finding {
    match (found, tools::HostPython::find()) {
        (Err(problem), _) => Finding::Missing(problem, "the system's package python3"),
        (Ok(text), Ok(_)) => Finding::Good(text),
        (Ok(text), Err(_)) => Finding::Poor(text, tools::HostPython::WANTED),
    }
}

fn compiler() -> Finding {
    const REMEDY: &str = "the system's package g++, version 10 or newer";
    let found = match first_line("g++", &["--version"]) {
        Ok(found) => found,
        Err(problem) => return Finding::Missing(problem, REMEDY),
    };
    let mut probe = Command::new("g++");
    probe.args(["-std=c++20", "-fsyntax-only", "-include", "span", "-x", "c++", "/dev/null"]);
    match probe.stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => Finding::Good(found),
        _ => Finding::Missing(format!("{found} does not compile C++20"), REMEDY),
    }
}

fn cluster() -> Finding {
    match crate::cluster::possible() {
        Ok(()) => Finding::Good("cargo xtask cluster".to_owned()),
        Err(problem) => Finding::Poor(format!("{problem:#}"), "only `cargo xtask cluster` wants it"),
    }
}

fn memlock() -> Finding {
    match getrlimit(Resource::Memlock).current {
        None => Finding::Good("unlimited".to_owned()),
        Some(limit) if limit >= 256 << 20 => Finding::Good(bytes(limit)),
        Some(limit) => Finding::Poor(
            bytes(limit),
            "enough for TCP and shared memory; RDMA needs more (`ulimit -l unlimited`)",
        ),
    }
}

fn space(path: &Path, wanted: u64) -> Finding {
    match free(path) {
        Some(free) if free >= wanted => Finding::Good(format!("{} in {}", bytes(free), path.display())),
        Some(free) => {
            Finding::Poor(format!("{} in {}", bytes(free), path.display()), "more is used by demo and tests")
        }
        None => Finding::Poor(format!("{} is not there", path.display()), "tests and UCX use it"),
    }
}

/// Bytes that this user can still write there.
pub fn free(path: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(path).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_say() {
        assert_eq!(version("go version go1.26.8 linux/amd64"), Some((1, 26)));
        assert_eq!(version("rustc 1.95.0 (59807616e 2026-04-14)"), Some((1, 95)));
        assert_eq!(version("no version"), None);
        let old = Ok("go version go1.9 linux".to_owned());
        assert!(matches!(at_least(&old, (1, 26), "get it"), Finding::Missing(..)));
    }
}
