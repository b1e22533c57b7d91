//! The rules of the architecture, watched while a test makes trouble. Each observer reports what it saw; none of them
//! trusts a status.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Result, ensure};
use devcluster::ProcessInfo;

use crate::cluster::Cluster;

/// Rule 2: looks at a destination's name again and again. Every content that it sees must be one that is allowed.
pub struct NameWatcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl NameWatcher {
    /// Watches `path`; `allowed` are files with the contents that may stand there (absence is allowed too).
    pub fn start(path: PathBuf, allowed: &[&Path]) -> Result<Self> {
        let allowed: Vec<Vec<u8>> =
            allowed.iter().map(|path| Ok(std::fs::read(path)?)).collect::<Result<_>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut looks = 0;
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(mut file) = File::open(&path) {
                    let mut content = Vec::new();
                    file.read_to_end(&mut content)?;
                    ensure!(
                        allowed.contains(&content),
                        "{} shows {} bytes that are neither the old nor the new content",
                        path.display(),
                        content.len()
                    );
                }
                looks += 1;
                std::thread::park_timeout(Duration::from_millis(20)); // a sampling interval
            }
            Ok(looks)
        });
        Ok(Self { stop, thread })
    }

    /// Ends the watch; fails when anything else was ever seen.
    pub fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        let looks = self.thread.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))??;
        ensure!(looks > 0, "the watcher never looked");
        Ok(())
    }
}

/// Rule 3, the half that can be seen from outside: an mtime or size of a file that must not change any more.
pub struct Frozen {
    files: Vec<(PathBuf, u64, std::time::SystemTime, u64)>,
}

impl Frozen {
    /// Remembers every file beneath `root`.
    pub fn new(root: &Path) -> Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let mut files = Vec::new();
        let mut open = vec![root.to_path_buf()];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory)? {
                let (path, metadata) = {
                    let entry = entry?;
                    (entry.path(), entry.metadata()?)
                };
                if metadata.is_dir() {
                    open.push(path);
                } else if metadata.is_file() {
                    files.push((path, metadata.len(), metadata.modified()?, metadata.ino()));
                }
            }
        }
        Ok(Self { files })
    }

    /// Fails when one of them has changed, was replaced, or is gone.
    pub fn assert_unchanged(&self) -> Result<()> {
        use std::os::unix::fs::MetadataExt;
        for (path, size, modified, inode) in &self.files {
            let now = std::fs::metadata(path)?;
            ensure!(
                (now.len(), now.modified()?, now.ino()) == (*size, *modified, *inode),
                "{} was changed after it was committed",
                path.display()
            );
        }
        Ok(())
    }
}

impl Cluster {
    /// Processes of workers on a node.
    pub fn workers(&self, node: &str) -> Vec<ProcessInfo> {
        let is_worker = |process: &ProcessInfo| process.arguments.iter().any(|argument| argument == "worker");
        self.agent(node).descendants().into_iter().filter(is_worker).collect()
    }

    /// Workers on a node that are not just waiting warm: those that hold a file of a volume or a network connection.
    pub fn busy_workers(&self, node: &str) -> Vec<ProcessInfo> {
        let volumes: Vec<PathBuf> = self.agent(node).volumes().values().cloned().collect();
        let holds = |process: &ProcessInfo| {
            open_files(process.pid).iter().any(|file| volumes.iter().any(|volume| file.starts_with(volume)))
        };
        self.workers(node).into_iter().filter(holds).collect()
    }

    /// Rule 7: every regular file that a node's workers hold open lies beneath a volume of that node. Returns those seen.
    pub fn assert_files_beneath_volumes(&self, node: &str) -> Result<usize> {
        let volumes: Vec<PathBuf> =
            self.agent(node).volumes().values().map(|path| path.canonicalize()).collect::<Result<_, _>>()?;
        let mut seen = BTreeSet::new();
        for worker in self.workers(node) {
            for file in open_files(worker.pid) {
                let shared_memory = file.starts_with("/dev/shm") || file.starts_with("/memfd:");
                let library = file.to_string_lossy().contains(".so");
                let device = file.starts_with("/dev/") && !file.starts_with("/dev/shm");
                if device || shared_memory || library || file.starts_with("/proc") || file.starts_with("/sys")
                {
                    continue;
                }
                let log = file.extension().is_some_and(|extension| extension == "log");
                ensure!(
                    log || volumes.iter().any(|volume| file.starts_with(volume)),
                    "a worker of {node} holds {} open, beneath no volume",
                    file.display()
                );
                seen.insert(file);
            }
        }
        Ok(seen.len())
    }

    /// Nothing of ended transfers is left on the nodes: no partial file, no worker with a file open.
    pub async fn assert_nothing_left(&self, nodes: &[&str], within: Duration) -> Result<()> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let mut left = Vec::new();
            for node in nodes {
                for volume in self.agent(node).volumes().values() {
                    left.extend(crate::data::leftovers(volume)?);
                }
                left.extend(self.busy_workers(node).iter().map(|worker| format!("worker {}", worker.pid)));
            }
            if left.is_empty() {
                return Ok(());
            }
            ensure!(tokio::time::Instant::now() < deadline, "left behind after {within:?}: {left:?}");
            tokio::time::sleep(Duration::from_millis(50)).await; // polls processes and files, which give no event
        }
    }

    /// Peak resident memory of a process in bytes, as the kernel counts it.
    pub fn peak_rss(pid: i32) -> Option<u64> {
        status_field(pid, "VmHWM:")
    }

    /// Resident memory of a process in bytes.
    pub fn rss(pid: i32) -> Option<u64> {
        status_field(pid, "VmRSS:")
    }
}

fn status_field(pid: i32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

fn open_files(pid: i32) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.is_absolute())
        .collect()
}
