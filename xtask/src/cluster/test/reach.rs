//! What a worker has within its reach, looked at from the machine while it serves: a peer can have all of it. The same search
//! must find the token where it is, in control's container; else it would find it nowhere.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use devcluster::ProcessInfo;

use super::Cluster;
use crate::progress::{Step, bytes};

const TOKEN: &str = "var/run/secrets/kubernetes.io/serviceaccount/token";
/// What a token of a service account begins with, whoever it is of: `{"alg":"` in base64.
const ANY_TOKEN: &str = "eyJhbGciOi";
/// Libraries are larger, and none holds a token; it was found on disk, if there.
const LARGEST_FILE: u64 = 64 << 20;

/// The agent's token, as its control has it.
pub fn token(cluster: &Cluster, node: &str) -> Result<String> {
    let control = process(cluster, node, "control")?;
    let path = root(&control).join(TOKEN);
    let token = fs::read_to_string(&path).with_context(|| format!("control of {node} has no token"))?;
    ensure!(token.starts_with(ANY_TOKEN), "the token of {node} begins otherwise than is searched for");
    Ok(token)
}

/// Every worker of the node, and the launcher, which starts them.
pub fn holds_no_token(cluster: &Cluster, node: &str) -> Result<()> {
    let step = Step::start("what a worker has within its reach");
    let control = process(cluster, node, "control")?;
    let found = in_files(&root(&control), &mut 0)?;
    ensure!(found.iter().any(|path| path.ends_with("/token")), "the search finds no token in control either");
    ensure!(in_memory(&control, &mut 0)?, "the search finds no token in control's memory either");
    let (mut files, mut memory) = (0, 0);
    let workers: Vec<ProcessInfo> =
        agents(cluster, node)?.into_iter().filter(|it| is(it, "worker")).collect();
    ensure!(!workers.is_empty(), "{node} has no worker");
    let found = in_files(&root(&workers[0]), &mut files)?;
    ensure!(found.is_empty(), "a worker can read a token: {found:?}");
    for process in workers.iter().chain([&process(cluster, node, "launcher")?]) {
        ensure!(!in_memory(process, &mut memory)?, "a token is in the memory of {:?}", process.arguments);
        confined(process)?;
    }
    step.done(&format!(
        "no token in {} workers' memory ({}) nor in the {files} files of their container",
        workers.len(),
        bytes(memory)
    ));
    Ok(())
}

/// The kernel's word about it.
fn confined(process: &ProcessInfo) -> Result<()> {
    let what = process.arguments.join(" ");
    let proc = Path::new("/proc").join(process.pid.to_string());
    let status = fs::read_to_string(proc.join("status"))?;
    for wanted in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
    {
        ensure!(
            status.lines().any(|line| line == wanted),
            "{what}: /proc says otherwise than {wanted:?}:\n{status}"
        );
    }
    let mounts = fs::read_to_string(proc.join("mounts"))?;
    let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/"));
    let options = root.and_then(|line| line.split(' ').nth(3)).unwrap_or_default();
    ensure!(options.split(',').any(|option| option == "ro"), "{what}: its root can be written: {options}");
    let environment = String::from_utf8_lossy(&fs::read(proc.join("environ"))?).into_owned();
    ensure!(!environment.contains("TOKEN"), "{what}: its environment names a token");
    // Control is not among the processes that it sees.
    let seen = fs::read_dir(proc.join("root/proc"))?
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    let control = seen.into_iter().find(|line| String::from_utf8_lossy(line).contains("\0control\0"));
    ensure!(control.is_none(), "{what}: it sees control's process");
    Ok(())
}

fn agents(cluster: &Cluster, node: &str) -> Result<Vec<ProcessInfo>> {
    cluster.running(node, "transfer-agent")
}

fn is(process: &ProcessInfo, role: &str) -> bool {
    process.arguments.get(1).is_some_and(|argument| argument == role)
}

fn process(cluster: &Cluster, node: &str, role: &str) -> Result<ProcessInfo> {
    let found = agents(cluster, node)?.into_iter().find(|it| is(it, role));
    found.with_context(|| format!("{node} has no {role} of an agent"))
}

fn root(process: &ProcessInfo) -> std::path::PathBuf {
    Path::new("/proc").join(process.pid.to_string()).join("root")
}

/// Files of its container that hold a token. Those of the kernel's own file systems are not files; volumes are not walked into.
fn in_files(root: &Path, looked: &mut usize) -> Result<Vec<String>> {
    let (mut left, mut found) = (vec![root.to_path_buf()], Vec::new());
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("{}", directory.display()))? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                let below = path.strip_prefix(root).unwrap_or(&path);
                if !["proc", "sys", "volumes"].iter().any(|hidden| below == Path::new(hidden)) {
                    left.push(path);
                }
                continue;
            }
            // What a link leads to within the container is a file of it; from here it would lead elsewhere.
            if kind.is_file() && entry.metadata()?.len() < LARGEST_FILE {
                *looked += 1;
                let text = fs::read(&path).with_context(|| format!("{} was not searched", path.display()))?;
                if contains(&text) {
                    found.push(path.display().to_string());
                }
            }
        }
    }
    Ok(found)
}

/// Whether any memory of it that can be written holds one. All of it is asked for, as a peer could.
fn in_memory(process: &ProcessInfo, looked: &mut u64) -> Result<bool> {
    let proc = Path::new("/proc").join(process.pid.to_string());
    let memory = File::open(proc.join("mem")).context("the memory of a process of root's")?;
    for line in fs::read_to_string(proc.join("maps"))?.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let Some((start, end)) = range.split_once('-') else { continue };
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        if !rights.starts_with("rw") {
            continue;
        }
        if search(&memory, start, end, looked) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// By the megabyte, each with the end of the one before.
fn search(memory: &File, start: u64, end: u64, looked: &mut u64) -> bool {
    const PIECE: usize = 1 << 20;
    let (mut at, mut buffer) = (start, vec![0; PIECE]);
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        // What cannot be read, such as memory of a device, is no memory of the process.
        let Ok(read @ 1..) = memory.read_at(&mut buffer[..wanted], at) else { return false };
        *looked += read as u64;
        if contains(&buffer[..read]) {
            return true;
        }
        let step = read.saturating_sub(ANY_TOKEN.len()).max(1);
        at += if at + read as u64 >= end { read as u64 } else { step as u64 };
    }
    false
}

fn contains(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, ANY_TOKEN.as_bytes()).is_some()
}
