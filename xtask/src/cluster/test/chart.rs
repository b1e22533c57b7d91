//! helm with the chart of this repository, and with values for a cluster that pulls nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::NAMESPACE;
use crate::cluster::certificates::ADMIN;
use crate::cluster::record::Place;
use crate::progress::Step;
use crate::{exec, paths};

const RELEASE: &str = "nixl-transfer";
/// The directory of the volume `data`, on every node.
pub const VOLUME: &str = "/var/lib/nixl-transfer/data";
/// helm's own deadline, and some more for helm.
const TIMEOUT: &str = "--timeout=180s";
const LONGEST: Duration = Duration::from_secs(200);

#[derive(Debug)]
pub struct Chart<'a> {
    pub place: &'a Place,
    pub directory: &'a Path,
}

impl Chart<'_> {
    /// Checks the chart with each of its example values, and that its README has the values that there are.
    pub fn lint(&self) -> Result<()> {
        let examples = self.directory.join("ci");
        let mut files: Vec<PathBuf> = fs::read_dir(&examples)
            .with_context(|| format!("{}", examples.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        files.sort();
        ensure!(!files.is_empty(), "{} holds no values", examples.display());
        for values in &files {
            let mut helm = Command::new(paths::tools().join("bin/helm"));
            helm.args(["lint", "--strict"]).arg(self.directory).arg("--values").arg(values);
            exec::watched_within(&mut helm, LONGEST, |_| {})
                .with_context(|| format!("helm lint with {}", values.display()))?;
        }
        let mut readme = Command::new("python3");
        readme.arg(paths::root().join("xtask/tools/chart-readme.py")).arg("--check");
        exec::watched_within(&mut readme, LONGEST, |_| {})
            .context("the chart's README is not what its values say: run xtask/tools/chart-readme.py")
    }

    /// Returns when operator and agents are ready.
    pub fn install(&self) -> Result<()> {
        let values = self.place.path().join("values.json");
        let data = json!({"name": "data", "hostPath": VOLUME, "allowedNamespaces": ["*"], "type": "DirectoryOrCreate"});
        let text = json!({
            "image": {"registry": "", "tag": "dev", "pullPolicy": "Never"},
            "agent": {"volumes": [data]},
        });
        fs::write(&values, text.to_string())?;
        let mut helm = self.helm(&["upgrade", "--install", "--create-namespace", "--wait", TIMEOUT, RELEASE]);
        helm.arg(self.directory).arg("--values").arg(values);
        run("installing the chart with helm", &mut helm, "operator and agents are ready")
    }

    /// Returns when all of it is gone.
    pub fn uninstall(&self) -> Result<()> {
        run("uninstalling the chart", &mut self.helm(&["uninstall", "--wait", TIMEOUT, RELEASE]), "")
    }

    /// Nothing of the user's: neither configuration nor plugins.
    fn helm(&self, arguments: &[&str]) -> Command {
        let mut helm = Command::new(paths::tools().join("bin/helm"));
        helm.env("KUBECONFIG", self.place.kubeconfig(ADMIN)).args(arguments).args(["--namespace", NAMESPACE]);
        for name in ["CACHE", "CONFIG", "DATA"] {
            helm.env(format!("HELM_{name}_HOME"), self.place.path().join("helm"));
        }
        helm
    }
}

fn run(label: &str, helm: &mut Command, done: &str) -> Result<()> {
    let mut step = Step::start(label);
    exec::watched_within(helm, LONGEST, |line| step.tick(line.unwrap_or("…"))).context("helm")?;
    step.done(done);
    Ok(())
}
