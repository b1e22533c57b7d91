//! etcd, Kubernetes' programs and what a node needs beside them, built by Go from the pinned modules in `xtask/tools`. Needs
//! Go and, the first time, its module proxy.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{
    CNI_VERSION, CONTAINERD_VERSION, ETCD_VERSION, HELM_VERSION, KUBERNETES_VERSION, PROMETHEUS_VERSION,
    cache,
};
use crate::exec;
use crate::paths;
use crate::progress::Step;

pub struct Program {
    pub name: &'static str,
    version: &'static str,
    /// The directory below `xtask/tools`.
    module: &'static str,
    package: &'static str,
    /// Go's build tags.
    tags: &'static str,
    /// Its share of a cold build on two cores, to say how long it may take.
    minutes: &'static str,
}

const fn kubernetes(name: &'static str, package: &'static str, minutes: &'static str) -> Program {
    Program { name, version: KUBERNETES_VERSION, module: "kubernetes", package, tags: "", minutes }
}

/// Drivers for file systems that nobody makes for a test are left out: they need C libraries.
const fn containerd(name: &'static str, package: &'static str, minutes: &'static str) -> Program {
    let tags = "no_btrfs no_devmapper";
    Program { name, version: CONTAINERD_VERSION, module: "containerd", package, tags, minutes }
}

const fn cni(name: &'static str, package: &'static str) -> Program {
    Program { name, version: CNI_VERSION, module: "cni", package, tags: "", minutes: "some seconds" }
}

/// Without its pages, which need Node.js to build, and without any discovery but of files.
const fn prometheus(name: &'static str, package: &'static str, minutes: &'static str) -> Program {
    let tags = "netgo remove_all_sd";
    Program { name, version: PROMETHEUS_VERSION, module: "prometheus", package, tags, minutes }
}

pub const PROGRAMS: &[Program] = &[
    Program {
        name: "etcd",
        version: ETCD_VERSION,
        module: "etcd",
        package: "go.etcd.io/etcd/server/v3",
        tags: "",
        minutes: "half a minute",
    },
    kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", "3 minutes"),
    kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl", "half a minute"),
    kubernetes("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", "a minute"),
];

/// For a job in a chart, and for our own chart.
pub const HELM: Program = Program {
    name: "helm",
    version: HELM_VERSION,
    module: "helm",
    package: "helm.sh/helm/v4/cmd/helm",
    tags: "",
    minutes: "a minute",
};

/// What tests need beside those.
pub const TEST_PROGRAMS: &[Program] = &[
    Program {
        name: "health",
        version: "1", // another number when its source changes what it says
        module: "health",
        package: ".",
        tags: "",
        minutes: "a minute",
    },
    prometheus("prometheus", "github.com/prometheus/prometheus/cmd/prometheus", "2 minutes"),
    prometheus("promtool", "github.com/prometheus/prometheus/cmd/promtool", "half a minute"),
];

/// What `cargo xtask cluster` needs beside those.
pub const CLUSTER_PROGRAMS: &[Program] = &[
    kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet", "2 minutes"),
    kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", "half a minute"),
    kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", "half a minute"),
    containerd("containerd", "github.com/containerd/containerd/v2/cmd/containerd", "a minute"),
    containerd(
        "containerd-shim-runc-v2",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        "some seconds",
    ),
    containerd("ctr", "github.com/containerd/containerd/v2/cmd/ctr", "some seconds"),
    cni("bridge", "github.com/containernetworking/plugins/plugins/main/bridge"),
    cni("host-local", "github.com/containernetworking/plugins/plugins/ipam/host-local"),
    cni("loopback", "github.com/containernetworking/plugins/plugins/main/loopback"),
    cni("portmap", "github.com/containernetworking/plugins/plugins/meta/portmap"),
    Program {
        name: "certificates",
        version: "1", // another number when its source changes what it makes
        module: "certificates",
        package: ".",
        tags: "",
        minutes: "some seconds",
    },
];

/// The cached program, when it is there.
pub fn find(cache: &Path, program: &Program) -> Option<PathBuf> {
    Some(cache.join(directory(program)).join("bin").join(program.name)).filter(|path| path.is_file())
}

pub fn ensure(cache: &Path, program: &Program) -> Result<PathBuf> {
    let place = cache::ensure(cache, &directory(program), |place| build(program, place))?;
    Ok(place.join("bin").join(program.name))
}

fn directory(program: &Program) -> String {
    format!("{}-{}", program.name, program.version)
}

fn build(program: &Program, place: &Path) -> Result<()> {
    let Program { name, version, minutes, .. } = program;
    let mut step = Step::start(format!("{name} {version}: building with Go (about {minutes} on two cores)"));
    let module = paths::root().join("xtask/tools").join(program.module);

    let mut total = 0_usize;
    let mut list = go(&module, &["list", "-deps", "-tags", program.tags, program.package]);
    exec::watched(&mut list, |line| {
        total += usize::from(line.is_some_and(|line| !line.starts_with("go: ")));
        step.tick(line.filter(|line| line.starts_with("go: ")).unwrap_or("reading modules"));
    })
    .context(
        "Go could not get the modules (is the module proxy reachable? `cargo xtask doctor` checks Go)",
    )?;

    let mut done = 0_usize;
    let flags = link_flags(program);
    let out = place.join("bin").join(name);
    let mut build = go(&module, &["build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", &flags]);
    build.args(["-tags", program.tags, "-o"]);
    // With -v, Go names each package that it compiles; those in its own cache are not named.
    exec::watched(build.arg(&out).arg(program.package), |line| {
        done += usize::from(line.is_some_and(|line| !line.starts_with("go: ")));
        step.tick(&format!("{done} of at most {total} packages"));
    })?;
    step.done(&format!("{done} packages compiled"));
    Ok(())
}

fn go(module: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("go");
    command.current_dir(module).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly").args(arguments);
    command
}

/// Without these a Kubernetes program says that it is v0.0.0, and clients believe it.
fn link_flags(program: &Program) -> String {
    if program.module != "kubernetes" {
        return "-s -w".to_owned();
    }
    let version = program.version;
    let mut parts = version.split('.');
    let (major, minor) = (parts.next().unwrap_or("0"), parts.next().unwrap_or("0"));
    let package = "k8s.io/component-base/version";
    format!(
        "-s -w -X {package}.gitVersion=v{version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_programs_know_their_version() {
        let flags = link_flags(&PROGRAMS[1]);
        assert!(
            flags.contains("gitVersion=v1.36.3")
                && flags.contains("gitMajor=1")
                && flags.ends_with("gitMinor=36")
        );
        assert_eq!(link_flags(&PROGRAMS[0]), "-s -w");
    }
}
