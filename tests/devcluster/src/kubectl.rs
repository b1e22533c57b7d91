//! Runs kubectl as one user against one cluster, with a deadline and readable errors.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// kubectl with a kubeconfig. Its discovery cache stands in the cluster's directory, not in the user's home.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
}

impl Kubectl {
    pub fn new(program: &Path, kubeconfig: &Path, cache: &Path) -> Self {
        Self { program: program.into(), kubeconfig: kubeconfig.into(), cache: cache.into() }
    }

    /// The program with its kubeconfig and cache set; each request to the server ends after 30 s (`wait` and `--watch` set their own).
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("KUBECONFIG", &self.kubeconfig).arg("--cache-dir").arg(&self.cache).stdin(Stdio::null());
        command
    }

    /// Standard output; an error carries what kubectl said.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with_input(arguments, None)
    }

    /// The same with a document on standard input (`-f -`).
    pub fn run_with_input(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let mut command = self.command();
        if !arguments.iter().any(|argument| argument.starts_with("--request-timeout")) {
            command.arg("--request-timeout=30s");
        }
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            // kubectl reads its input to the end before it writes, so this cannot deadlock; a broken pipe shows in its status.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("kubectl {} failed: {}", arguments.join(" "), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
