//! helm with the chart of this repository, and with values for a cluster that pulls nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use devcluster::Kubectl;
use serde_json::json;

use super::NAMESPACE;
use super::ask::long;
use super::work::volume_at;
use crate::cluster::certificates::ADMIN;
use crate::cluster::node;
use crate::cluster::record::Place;
use crate::progress::Step;
use crate::{exec, image, paths};

const RELEASE: &str = "nixl-transfer";
/// The directory of the volume `data`, on every node.
pub const VOLUME: &str = "/var/lib/nixl-transfer/data";
/// Another one, of one tenant.
pub const PRIVATE: &str = "/var/lib/nixl-transfer/private";
pub const TENANT: &str = "ml";
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
        for values in self.examples()? {
            let mut helm = Command::new(paths::tools().join("bin/helm"));
            helm.args(["lint", "--strict"]).arg(self.directory).arg("--values").arg(&values);
            exec::watched_within(&mut helm, LONGEST, |_| {})
                .with_context(|| format!("helm lint with {}", values.display()))?;
        }
        let mut readme = Command::new("python3");
        readme.arg(paths::root().join("xtask/tools/chart-readme.py")).arg("--check");
        exec::watched_within(&mut readme, LONGEST, |_| {})
            .context("the chart's README is not what its values say: run xtask/tools/chart-readme.py")
    }

    /// Has the API server check every object that the example values make, as it does before it stores one: no field that it does not
    /// know, no value that it does not take. What belongs to Prometheus' operator is not known here.
    pub fn validate(&self, kubectl: &Kubectl) -> Result<()> {
        let step = Step::start("objects of the chart's example values");
        let mut count = 0;
        for values in self.examples()? {
            let mut helm = self.helm(&["template", RELEASE]);
            let mut objects = String::new();
            exec::watched_within(helm.arg(self.directory).arg("--values").arg(&values), LONGEST, |line| {
                objects.extend(line.map(|line| format!("{line}\n")));
            })?;
            let known = |object: &&str| {
                object.contains("\nkind: ") && !object.contains("\napiVersion: monitoring.coreos.com/")
            };
            let known: Vec<&str> = objects.split("\n---\n").filter(known).collect();
            let arguments = [
                "apply",
                "--server-side",
                "--force-conflicts",
                "--dry-run=server",
                "--validate=strict",
                "--filename=-",
            ];
            kubectl
                .run_with_input(&arguments, Some(&known.join("\n---\n")))
                .with_context(|| format!("with {}", values.display()))?;
            count += known.len();
        }
        step.done(&format!("{count} objects, and the API server would take each"));
        Ok(())
    }

    fn examples(&self) -> Result<Vec<PathBuf>> {
        let examples = self.directory.join("ci");
        let mut files: Vec<PathBuf> = fs::read_dir(&examples)
            .with_context(|| format!("{}", examples.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        files.sort();
        ensure!(!files.is_empty(), "{} holds no values", examples.display());
        Ok(files)
    }

    /// Returns when operator and agents are ready.
    pub fn install(&self) -> Result<()> {
        let mut helm = self.helm(&["upgrade", "--install", "--create-namespace", "--wait", TIMEOUT, RELEASE]);
        helm.arg(self.directory).arg("--values").arg(self.values(image::TAG)?);
        run("installing the chart with helm", &mut helm, "operator and agents are ready")
    }

    /// To a chart of the next version, whose images have this tag.
    pub fn upgrade(&self, tag: &str) -> Result<()> {
        let next = self.place.path().join("next-chart");
        exec::output(
            "cp",
            &["-a", "-T", &self.directory.display().to_string(), &next.display().to_string()],
        )?;
        let file = next.join("Chart.yaml");
        let text = fs::read_to_string(&file)?;
        let line = |line: &str| {
            if line.starts_with("version:") { "version: 99.0.0".into() } else { line.to_owned() }
        };
        fs::write(&file, text.lines().map(line).collect::<Vec<_>>().join("\n"))?;
        let mut helm = self.helm(&["upgrade", "--wait", TIMEOUT, RELEASE]);
        exec::watched_within(helm.arg(&next).arg("--values").arg(self.values(tag)?), LONGEST, |_| {})
            .context("helm upgrade")
    }

    /// To what was installed before.
    pub fn roll_back(&self) -> Result<()> {
        exec::watched_within(&mut self.helm(&["rollback", "--wait", TIMEOUT, RELEASE]), LONGEST, |_| {})
            .context("helm rollback")
    }

    fn values(&self, tag: &str) -> Result<PathBuf> {
        let file = self.place.path().join(format!("values-{tag}.json"));
        let volume = |name: &str, path: &str, spaces: &str| json!({"name": name, "hostPath": path, "allowedNamespaces": [spaces], "type": "DirectoryOrCreate"});
        let text = json!({
            "image": {"registry": "", "tag": tag, "pullPolicy": "Never"},
            "agent": {"volumes": [volume("data", VOLUME, "*"), volume("private", PRIVATE, TENANT)]},
        });
        fs::write(&file, text.to_string())?;
        Ok(file)
    }

    /// Takes away what a test that failed has left in a cluster that stays up.
    pub fn clear(&self, kubectl: &Kubectl, nodes: usize) -> Result<()> {
        exec::watched_within(
            &mut self.helm(&["uninstall", "--ignore-not-found", "--wait", TIMEOUT, RELEASE]),
            LONGEST,
            |_| {},
        )
        .context("helm uninstall")?;
        if kubectl
            .run(&["get", "crd", "transferjobs.nixl-transfer.io", "--ignore-not-found", "--output=name"])?
            .is_empty()
        {
            return Ok(());
        }
        long(kubectl, &["delete", "transferjobs,memoryregions", "--all", "--all-namespaces"])?;
        for (name, volume) in node::names(nodes).iter().flat_map(|name| [(name, VOLUME), (name, PRIVATE)]) {
            let directory = volume_at(self.place, name, volume);
            if directory.exists() {
                fs::remove_dir_all(&directory).with_context(|| format!("{}", directory.display()))?;
            }
        }
        Ok(())
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
