//! `kubectl transfer` as a person calls it, with the rights of the administrator or of somebody else.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use devcluster::{ADMIN, binary};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::cluster::{Cluster, NAMESPACE};

/// Longer than any command here may take.
const WITHIN: Duration = Duration::from_secs(90);

/// The plugin as one user.
pub struct Plugin {
    kubeconfig: PathBuf,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub error: String,
}

/// A command that runs, and the lines that it writes.
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Cluster {
    /// The plugin as administrator.
    pub fn plugin(&self) -> Plugin {
        Plugin { kubeconfig: self.plane.kubeconfig(ADMIN) }
    }

    /// The plugin as somebody who has no rights, unless the test gives some: the administrator speaks in that name.
    pub fn plugin_as(&self, user: &str) -> Result<Plugin> {
        let mut config: Value =
            serde_json::from_str(&std::fs::read_to_string(self.plane.kubeconfig(ADMIN))?)?;
        config["users"][0]["user"]["as"] = json!(user);
        let kubeconfig = self.directory().join(format!("{user}.kubeconfig"));
        std::fs::write(&kubeconfig, config.to_string())?;
        Ok(Plugin { kubeconfig })
    }

    /// Gives a user in the tests' namespace what one of the chart's roles for people grants: `view` or `edit`.
    pub fn grant(&self, user: &str, role: &str) -> Result<()> {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/nixl-transfer");
        let text = std::fs::read_to_string(chart.join("templates/access/userroles.yaml"))?;
        // A template, but for its rules.
        let document = text.split("\n---").find(|document| document.contains(&format!("\"{role}\")")));
        let (_, rules) = document.and_then(|it| it.split_once("\nrules:\n")).context("a role with rules")?;
        let rules: Value = serde_yaml::from_str(rules.split("{{").next().unwrap_or_default())?;
        let group = "rbac.authorization.k8s.io";
        let name = format!("{user}-{role}");
        let subject = json!([{"apiGroup": group, "kind": "User", "name": user}]);
        let reference = json!({"apiGroup": group, "kind": "ClusterRole", "name": name});
        let object = |kind: &str| json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": name}});
        let mut of_role = object("ClusterRole");
        of_role["rules"] = rules;
        // Everywhere: TransferNodes have no namespace.
        let mut binding = object("ClusterRoleBinding");
        (binding["subjects"], binding["roleRef"]) = (subject, reference);
        for object in [of_role, binding] {
            self.apply(&object)?;
        }
        Ok(())
    }
}

impl Plugin {
    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary("kubectl-transfer")?);
        command.args(arguments).args(["-n", NAMESPACE]).arg("--kubeconfig").arg(&self.kubeconfig);
        command.env_remove("COLUMNS").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        Ok(command)
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Result<Said> {
        let output = timeout(WITHIN, self.command(arguments)?.output()).await;
        let output = output.with_context(|| format!("{arguments:?} does not end"))??;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = output.status.code().context("it was killed")?;
        Ok(Said { code, out: text(output.stdout), error: text(output.stderr) })
    }

    /// Runs a command that must succeed; what it wrote to standard output.
    pub async fn ok(&self, arguments: &[&str]) -> Result<String> {
        let said = self.run(arguments).await?;
        ensure!(said.code == 0, "{arguments:?}: {said:?}");
        Ok(said.out)
    }

    /// Starts a command.
    pub fn start(&self, arguments: &[&str]) -> Result<Running> {
        let mut child = self.command(arguments)?.spawn()?;
        let lines = BufReader::new(child.stdout.take().context("standard output")?).lines();
        Ok(Running { child, lines })
    }
}

impl Running {
    /// Waits for a line that has this in it.
    pub async fn line(&mut self, text: &str) -> Result<String> {
        let wanted = async {
            while let Some(line) = self.lines.next_line().await? {
                if line.contains(text) {
                    return Ok(line);
                }
            }
            bail!("it ended without a line that says {text:?}")
        };
        timeout(WITHIN, wanted).await.with_context(|| format!("no line says {text:?}"))?
    }

    /// Waits for its end; what it wrote after the last line that was read.
    pub async fn end(mut self) -> Result<Said> {
        let mut out = String::new();
        let rest = async {
            while let Some(line) = self.lines.next_line().await? {
                out += &(line + "\n");
            }
            anyhow::Ok(self.child.wait_with_output().await?)
        };
        let output = timeout(WITHIN, rest).await.context("it does not end")??;
        let code = output.status.code().context("it was killed")?;
        Ok(Said { code, out, error: String::from_utf8_lossy(&output.stderr).into_owned() })
    }
}
