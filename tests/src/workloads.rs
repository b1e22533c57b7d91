//! Pods in tests that hand memory over: the objects and tokens are real, the process that stands for the pod is this one or
//! a child.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nixl_transfer_client::{AUDIENCE, Workload};
use serde_json::{Value, json};

use crate::cluster::{Cluster, NAMESPACE};

/// How long a client waits for an answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// The agents' sockets of one test, in a directory of their own: such a path must be short.
pub struct Sockets(PathBuf);

impl Sockets {
    /// A directory that is removed with this.
    pub fn new() -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("nixl-transfer-{}", short_id()?));
        std::fs::create_dir(&directory)?;
        Ok(Self(directory))
    }

    /// The socket of a node's agent.
    pub fn of(&self, node: &str) -> PathBuf {
        self.0.join(node)
    }

    /// What the agent's configuration says of it.
    pub fn config(&self, node: &str) -> Value {
        json!({"memory": {"socket": self.of(node)}})
    }

    /// A file in the same directory.
    pub fn file(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::write(&path, content)?;
        Ok(path)
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        // What cannot be removed is in the directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn short_id() -> Result<String> {
    let mut bytes = [0; 5];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Cluster {
    /// Makes a pod on a node, in the tests' namespace, and the service account that it needs.
    pub fn make_pod(&self, name: &str, node: &str) -> Result<()> {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": NAMESPACE}});
        self.plane.apply_text(&account.to_string())?;
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "nodeName": node, "automountServiceAccountToken": false,
                "containers": [{"name": "main", "image": "none"}],
            },
        });
        self.plane.apply_text(&pod.to_string())?;
        Ok(())
    }

    /// A token of the pod for an audience, as a projected volume holds it.
    pub fn token_for(&self, pod: &str, audience: &str) -> Result<String> {
        let namespace = format!("--namespace={NAMESPACE}");
        let (bound, audience) = (format!("--bound-object-name={pod}"), format!("--audience={audience}"));
        let words = ["create", "token", "default", &namespace, "--bound-object-kind=Pod", &bound, &audience];
        Ok(self.plane.kubectl(&words)?.trim().to_owned())
    }

    /// A token of the pod for the agent.
    pub fn token(&self, pod: &str) -> Result<String> {
        self.token_for(pod, AUDIENCE)
    }

    /// Connects to the agent of a node as the pod, which is made.
    pub fn workload(&self, sockets: &Sockets, pod: &str, node: &str) -> Result<Workload> {
        self.make_pod(pod, node)?;
        Ok(Workload::connect(&sockets.of(node), &self.token(pod)?, ANSWERED_WITHIN)?)
    }
}

/// A program that stands for a pod; ended with this.
pub struct Program {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Program {
    /// Starts a Python script of this repository, with nothing but the standard library and `modules`.
    pub fn python(script: &Path, modules: &[PathBuf], arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new("python3");
        command.args(["-S", "-B"]).arg(script).args(arguments);
        command.env("PYTHONPATH", std::env::join_paths(modules)?);
        Self::start(command)
    }

    /// Starts a program.
    pub fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let (said, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().context("a pipe")?);
        // Ends with the program.
        std::thread::spawn(move || {
            for line in output.lines().map_while(std::result::Result::ok) {
                // Nobody listens any more when the test is over.
                let _ = said.send(line);
            }
        });
        Ok(Self { child, lines })
    }

    /// The next line of standard output.
    pub fn line(&self, within: Duration) -> Result<String> {
        match self.lines.recv_timeout(within) {
            Ok(line) => Ok(line),
            Err(error) => bail!("the program says nothing ({error}) within {within:?}"),
        }
    }

    /// The next line that begins so.
    pub fn line_with(&self, start: &str, within: Duration) -> Result<String> {
        loop {
            let line = self.line(within).with_context(|| format!("waiting for {start:?}"))?;
            if line.starts_with(start) {
                return Ok(line);
            }
        }
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its good end, which must be near.
    pub fn wait(mut self, within: Duration) -> Result<()> {
        let deadline = std::time::Instant::now() + within;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the program ended with {status}"),
                None if std::time::Instant::now() > deadline => bail!("the program has not ended"),
                None => std::thread::sleep(Duration::from_millis(20)), // polls a child, with a deadline
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
