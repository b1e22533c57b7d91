//! Where a cluster's files are, who may work on it, and what was made: written down before it is used, so that whoever
//! comes after a crash finds all of it.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use devcluster::ProcessInfo;
use serde_json::{Value, json};

/// Where nodes have directories of their own: what they must see there cannot stand in them.
pub const HIDDEN_ON_NODES: &[&str] = &["/run", "/var/run", "/var/lib", "/var/log"];

/// The right to make, change and end the cluster of this user, for as long as it lives.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    _lock: File,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// In the names of what all of the machine can see: a network device, cgroups.
    pub tag: String,
    /// The second number of all its addresses.
    pub network: u8,
    pub nodes: usize,
    /// It was ready once.
    pub complete: bool,
    /// By the name of the space whose first two processes they are; everything else of it ends with them.
    pub processes: Vec<(String, ProcessInfo)>,
}

impl Place {
    /// `${XDG_STATE_HOME:-~/.local/state}/nixl-transfer/cluster`
    pub fn lock() -> Result<Self> {
        let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home);
        let parent = state.context("neither XDG_STATE_HOME nor HOME is set")?.join("nixl-transfer");
        let path = std::path::absolute(parent.join("cluster"))?;
        if let Some(hidden) = HIDDEN_ON_NODES.iter().find(|hidden| path.starts_with(hidden)) {
            bail!("{} is in {hidden}, which nodes have for themselves: set XDG_STATE_HOME", path.display());
        }
        private_directory(&parent)?;
        let lock = File::create(path.with_extension("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => {
                bail!("another `cargo xtask cluster` is at work: wait for it, or interrupt it")
            }
            Err(fs::TryLockError::Error(error)) => Err(error).context("cannot lock the cluster"),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn certificates(&self) -> PathBuf {
        self.path.join("certificates")
    }

    /// The file with which a user of `certificates` talks to the API server.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.path.join(format!("{user}.kubeconfig"))
    }

    /// The directory of a node, or of the hub.
    pub fn space(&self, name: &str) -> PathBuf {
        self.path.join("spaces").join(name)
    }

    /// None when there is no cluster, nor what is left of one.
    pub fn record(&self) -> Result<Option<Record>> {
        let file = self.file();
        match fs::read(&file) {
            Ok(text) => {
                let value = serde_json::from_slice(&text).ok();
                let record = value.as_ref().and_then(Record::parse);
                let remedy = "end the processes `xtask cluster init` by hand, then remove its directory";
                record.map(Some).with_context(|| format!("{} is damaged: {remedy}", file.display()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// Replaced by rename: a crash leaves the earlier record or this one.
    pub fn write(&self, record: &Record) -> Result<()> {
        private_directory(&self.path)?;
        let next = self.path.join("record.next");
        fs::write(&next, format!("{:#}\n", record.render())).context("cannot write what was made")?;
        Ok(fs::rename(next, self.file())?)
    }

    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    fn file(&self) -> PathBuf {
        self.path.join("record.json")
    }
}

impl Record {
    fn render(&self) -> Value {
        let processes: Vec<Value> = self
            .processes
            .iter()
            .map(|(space, process)| json!({"space": space, "process": process}))
            .collect();
        json!({"tag": self.tag, "network": self.network, "nodes": self.nodes, "complete": self.complete,
               "processes": processes})
    }

    fn parse(value: &Value) -> Option<Self> {
        let process = |entry: &Value| {
            let process = serde_json::from_value(entry["process"].clone()).ok()?;
            Some((entry["space"].as_str()?.to_owned(), process))
        };
        Some(Self {
            tag: value["tag"].as_str()?.to_owned(),
            network: value["network"].as_u64()?.try_into().ok()?,
            nodes: value["nodes"].as_u64()?.try_into().ok()?,
            complete: value["complete"].as_bool()?,
            processes: value["processes"].as_array()?.iter().map(process).collect::<Option<_>>()?,
        })
    }

    /// Whether all that it was made of still is there.
    pub fn is_alive(&self) -> bool {
        self.processes.len() == 2 * (self.nodes + 1)
            && self.processes.iter().all(|(_, process)| lives(process))
    }

    /// The first process of a space, as this machine sees it.
    pub fn init(&self, space: &str) -> Result<i32> {
        let last = self.processes.iter().rfind(|(name, _)| name == space);
        Ok(last.with_context(|| format!("there is no {space}"))?.1.pid)
    }
}

/// A process number alone may have been given to somebody else.
pub fn lives(process: &ProcessInfo) -> bool {
    devcluster::process(process.pid)
        .is_some_and(|now| now.start_time == process.start_time && now.state != 'Z')
}

/// Only root reads what is in it: keys.
pub fn private_directory(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot create {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(processes: Vec<(String, ProcessInfo)>) -> Record {
        Record { tag: "nixl-1".into(), network: 79, nodes: 1, complete: true, processes }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_damaged_one_is_not() {
        let me = devcluster::process(std::process::id() as i32).unwrap();
        let written = record(vec![("hub".into(), me.clone()), ("hub".into(), me)]);
        assert_eq!(Record::parse(&written.render()), Some(written.clone()));
        assert_eq!(written.init("hub").unwrap(), std::process::id() as i32);
        assert!(written.init("node-a").is_err());
        let mut damaged = written.render();
        damaged["processes"][0]["process"] = Value::Null;
        assert_eq!(Record::parse(&damaged), None);
    }

    #[test]
    fn a_reused_number_is_not_the_process() {
        let me = devcluster::process(std::process::id() as i32).unwrap();
        let other = ProcessInfo { start_time: me.start_time + 1, ..me.clone() };
        assert!(lives(&me) && !lives(&other));
        let four = |last: &ProcessInfo| {
            [&me, &me, &me, last].map(|process| ("x".to_owned(), process.clone())).to_vec()
        };
        assert!(record(four(&me)).is_alive());
        assert!(!record(four(&other)).is_alive());
        assert!(!record(Vec::new()).is_alive());
    }
}
