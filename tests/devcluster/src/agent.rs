//! One agent as a child process: a node of its own, with its own volume directories and configuration.

mod config;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;

use crate::cluster_dir::{ClusterDir, Registry, private_dir};
use crate::control_plane::ControlPlane;
use crate::http::http_get_at;
use crate::identity::{agent_user, write_secret};
use crate::ports::free_port;
use crate::process::{Launch, Process};
use crate::process_table::{ProcessInfo, descendants};
use crate::tool_paths::NixlPaths;

/// A directory that the agent publishes.
#[derive(Clone, Debug)]
pub struct Volume {
    pub name: String,
    /// None: a directory of its own in the agent's directory.
    pub path: Option<PathBuf>,
    pub read_only: bool,
    pub allowed_namespaces: Vec<String>,
}

impl Volume {
    /// Writable, for every namespace, in the agent's directory.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), path: None, read_only: false, allowed_namespaces: vec!["*".to_owned()] }
    }
}

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// `transfer-agent`.
    pub binary: PathBuf,
    pub node: String,
    pub nixl: NixlPaths,
    pub volumes: Vec<Volume>,
    /// Merged over the generated configuration: objects by key, anything else replaced, null removes.
    pub extra_config: Value,
    pub environment: Vec<(String, String)>,
    /// A command that ends by becoming another one, such as `nsenter`: it is given the agent's. Empty: none.
    pub start_with: Vec<String>,
    /// Where it serves `/readyz` and `/metrics`: reachable for this process.
    pub address: IpAddr,
    pub ready_within: Duration,
}

impl AgentOptions {
    /// One volume `data`, nothing extra.
    pub fn new(binary: PathBuf, node: &str, nixl: NixlPaths) -> Self {
        Self {
            binary,
            node: node.to_owned(),
            nixl,
            volumes: vec![Volume::new("data")],
            extra_config: Value::Null,
            environment: Vec::new(),
            start_with: Vec::new(),
            address: Ipv4Addr::LOCALHOST.into(),
            ready_within: Duration::from_secs(20),
        }
    }
}

/// A running agent. Dropping it kills its process group.
#[derive(Debug)]
pub struct Agent {
    process: Option<Process>,
    launch: Launch,
    registry: Arc<Registry>,
    node: String,
    config: PathBuf,
    volumes: BTreeMap<String, PathBuf>,
    serves: SocketAddr,
    ready_within: Duration,
}

impl Agent {
    /// Starts it; it need not be ready yet, see [`Agent::wait_ready`].
    pub fn start(cluster: &ClusterDir, plane: &ControlPlane, options: AgentOptions) -> Result<Self> {
        let directory = Self::directory_in(cluster, &options.node);
        private_dir(&directory)?;
        let mut volumes = BTreeMap::new();
        for volume in &options.volumes {
            let path = volume.path.clone().unwrap_or_else(|| directory.join("volumes").join(&volume.name));
            private_dir(&path)?;
            volumes.insert(volume.name.clone(), path);
        }
        let serves = SocketAddr::from((options.address, free_port()?));
        let config = directory.join("agent.yaml");
        let kubeconfig = plane.kubeconfig(&agent_user(&options.node));
        write_secret(&config, &config::render(&options, &kubeconfig, serves, &volumes))?;
        let mut words: Vec<OsString> = options.start_with.iter().map(Into::into).collect();
        words.push(options.binary.into_os_string());
        words.extend(["control".into(), "--config".into(), config.clone().into_os_string()]);
        let launch = Launch {
            name: format!("agent-{}", options.node),
            program: words.remove(0).into(),
            arguments: words,
            environment: options.environment.into_iter().map(|(name, value)| (name, value.into())).collect(),
            log: directory.join("agent.log"),
            directory,
            tie: plane.tie(),
        };
        let registry = plane.registry().clone();
        let process = Some(Process::start(&launch, &registry)?);
        let ready_within = options.ready_within;
        Ok(Self { process, launch, registry, node: options.node, config, volumes, serves, ready_within })
    }

    /// Where the agent of `node` will keep its things, so that data can be written before it is started
    /// (`volumes/<name>` below it).
    pub fn directory_in(cluster: &ClusterDir, node: &str) -> PathBuf {
        cluster.path().join("nodes").join(node)
    }

    /// Returns when `/readyz` answers 200.
    pub fn wait_ready(&self) -> Result<()> {
        let process =
            self.process.as_ref().with_context(|| format!("the agent of {} was stopped", self.node))?;
        process.wait_ready(Instant::now() + self.ready_within, || {
            http_get_at(self.serves, "/readyz", Duration::from_secs(2)).is_ok_and(|(status, _)| status == 200)
        })
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> Result<String> {
        self.metrics_within(Duration::from_secs(5))
    }

    /// The same with a deadline, for one that may be stopped.
    pub fn metrics_within(&self, timeout: Duration) -> Result<String> {
        Ok(http_get_at(self.serves, "/metrics", timeout)?.1)
    }

    /// Launcher and workers: everything below the agent, parents first.
    pub fn descendants(&self) -> Vec<ProcessInfo> {
        self.pid().map(descendants).unwrap_or_default()
    }

    /// SIGKILL to control alone, as a crash would be; it is gone when this returns. Launcher and workers must notice by
    /// themselves: look them up with [`Agent::descendants`] before.
    pub fn kill9(&mut self) -> Result<()> {
        match &self.process {
            Some(process) => process.kill9(),
            None => Ok(()),
        }
    }

    /// SIGSTOP, SIGCONT, SIGTERM, … to control.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process
            .as_ref()
            .with_context(|| format!("the agent of {} was stopped", self.node))?
            .signal(signal)
    }

    /// Starts it again with the same configuration; what is left of the earlier one is killed first.
    pub fn restart(&mut self) -> Result<()> {
        self.process = None;
        self.process = Some(Process::start(&self.launch, &self.registry)?);
        Ok(())
    }

    /// SIGTERM; true when it ended by itself within `grace`.
    pub fn stop(mut self, grace: Duration) -> bool {
        self.process.take().is_none_or(|process| process.stop(grace))
    }

    pub fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_running)
    }

    pub fn pid(&self) -> Option<i32> {
        self.process.as_ref().map(Process::pid)
    }

    pub fn node(&self) -> &str {
        &self.node
    }

    /// The directory of a volume.
    pub fn volume(&self, name: &str) -> Result<&Path> {
        self.volumes
            .get(name)
            .map(PathBuf::as_path)
            .with_context(|| format!("{} has no volume {name}", self.node))
    }

    pub fn volumes(&self) -> &BTreeMap<String, PathBuf> {
        &self.volumes
    }

    pub fn config(&self) -> &Path {
        &self.config
    }

    pub fn log(&self) -> &Path {
        &self.launch.log
    }

    /// Where `/readyz`, `/healthz` and `/metrics` are served.
    pub fn port(&self) -> u16 {
        self.serves.port()
    }

    pub(crate) fn leave(mut self) {
        if let Some(process) = self.process.take() {
            process.leave();
        }
    }
}
