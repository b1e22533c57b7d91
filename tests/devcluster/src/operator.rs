//! The operator as a child process.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::cluster_dir::ClusterDir;
use crate::control_plane::ControlPlane;
use crate::http::http_get;
use crate::identity::OPERATOR;
use crate::ports::free_port;
use crate::process::{Launch, Process};
use crate::{SYSTEM_NAMESPACE, cluster_dir::private_dir};

/// How the operator is started.
#[derive(Clone, Debug)]
pub struct OperatorOptions {
    /// `transfer-operator`.
    pub binary: PathBuf,
    /// Appended to the command line.
    pub extra_arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Distinguishes several operators of one cluster.
    pub name: String,
    /// Whose kubeconfig it uses.
    pub user: &'static str,
    pub ready_within: Duration,
}

impl OperatorOptions {
    pub fn new(binary: PathBuf) -> Self {
        Self {
            binary,
            extra_arguments: Vec::new(),
            environment: Vec::new(),
            name: "operator".to_owned(),
            user: OPERATOR,
            ready_within: Duration::from_secs(20),
        }
    }
}

/// A running operator. Dropping it kills it.
#[derive(Debug)]
pub struct Operator {
    process: Option<Process>,
    launch: Launch,
    registry: std::sync::Arc<crate::cluster_dir::Registry>,
    port: u16,
    ready_within: Duration,
}

impl Operator {
    /// Starts it; it need not be ready yet, see [`Operator::wait_ready`].
    pub fn start(cluster: &ClusterDir, plane: &ControlPlane, options: OperatorOptions) -> Result<Self> {
        let directory = cluster.path().join(&options.name);
        private_dir(&directory)?;
        let port = free_port()?;
        let mut arguments = vec![
            "run".into(),
            "--kubeconfig".into(),
            plane.kubeconfig(options.user).into_os_string(),
            "--namespace".into(),
            SYSTEM_NAMESPACE.into(),
            "--listen".into(),
            format!("127.0.0.1:{port}").into(),
        ];
        arguments.extend(options.extra_arguments.iter().map(Into::into));
        let launch = Launch {
            name: options.name,
            program: options.binary,
            arguments,
            environment: options.environment.into_iter().map(|(name, value)| (name, value.into())).collect(),
            log: directory.join("operator.log"),
            directory,
            tie: plane.tie(),
        };
        let registry = plane.registry().clone();
        let process = Some(Process::start(&launch, &registry)?);
        Ok(Self { process, launch, registry, port, ready_within: options.ready_within })
    }

    /// Returns when `/readyz` answers 200.
    pub fn wait_ready(&self) -> Result<()> {
        let process = self.process.as_ref().context("the operator was stopped")?;
        process.wait_ready(Instant::now() + self.ready_within, || {
            http_get(self.port, "/readyz", Duration::from_secs(2)).is_ok_and(|(status, _)| status == 200)
        })
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> Result<String> {
        self.metrics_within(Duration::from_secs(5))
    }

    /// The same with a deadline, for one that may be stopped.
    pub fn metrics_within(&self, timeout: Duration) -> Result<String> {
        Ok(http_get(self.port, "/metrics", timeout)?.1)
    }

    /// SIGKILL, as a crash would be. The process is gone when this returns.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |process| process.kill9())
    }

    /// SIGSTOP, SIGCONT, SIGTERM, …
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.as_ref().context("the operator was stopped")?.signal(signal)
    }

    /// Starts it again, with the same command line; kills it first when it runs.
    pub fn restart(&mut self) -> Result<()> {
        self.kill9()?;
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

    pub fn log(&self) -> &std::path::Path {
        &self.launch.log
    }

    /// Where `/readyz`, `/healthz` and `/metrics` are served.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn leave(mut self) {
        if let Some(process) = self.process.take() {
            process.leave();
        }
    }
}
