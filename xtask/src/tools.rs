//! Gets what the build and the tests need and no package of ours contains: NIXL, libclang, etcd and Kubernetes' programs,
//! Prometheus, and Dynamo's Python module as the other end of tests.
//! Each tool is a directory of the cache, complete when it exists; `.tools` in the checkout links to them.

mod cache;
mod debian;
mod go;
mod host_python;
mod links;
mod pip;
mod python_peer;
mod wheels;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;

use crate::paths;
use crate::progress::seconds;

pub use host_python::HostPython;

/// Versions stand here, in `tools/wheels.txt`, `tools/python-peer` and in `tools/*/go.mod`; a test compares them.
pub const NIXL_VERSION: &str = "1.5.1";
/// What running workers may still have: a peer in tests only.
pub const OLDER_NIXL_VERSION: &str = "1.4.1";
pub const DYNAMO_VERSION: &str = "1.6.1";
pub const LIBCLANG_VERSION: &str = "18.1.1";
pub const ETCD_VERSION: &str = "3.6.16";
pub const KUBERNETES_VERSION: &str = "1.36.3";
pub const CONTAINERD_VERSION: &str = "2.2.1";
pub const CNI_VERSION: &str = "1.9.0";
pub const HELM_VERSION: &str = "4.3.1";
/// Of the Go module; the program calls itself 3.13.5.
pub const PROMETHEUS_VERSION: &str = "0.313.5";

/// The user's own control plane, by the ecosystem's name for it.
pub const KUBEBUILDER_ASSETS: &str = "KUBEBUILDER_ASSETS";

/// How much is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Enough to compile, and for an image.
    Build,
    /// Enough for the demo.
    Demo,
    /// And kube-controller-manager, for tests of namespace deletion, helm, the judges of an object's health, Prometheus, and the
    /// Python peers.
    Everything,
    /// And what the nodes of a real cluster run.
    Cluster,
}

/// Makes sure that everything wanted is there, and linked. Says nothing when it all is.
pub fn ensure(wanted: Wanted) -> Result<()> {
    let cache = paths::cache()?;
    let nixl = wheels::ensure(&cache, &wheels::NIXL)?;
    let libclang = wheels::ensure(&cache, &wheels::LIBCLANG)?;
    let mut programs = Vec::new();
    let own = kubebuilder_assets();
    if own.is_none() && std::env::var_os(KUBEBUILDER_ASSETS).is_some() {
        eprintln!(
            "  {KUBEBUILDER_ASSETS} is set, but has not all of etcd, kube-apiserver and kubectl: not used"
        );
    }
    for program in go::PROGRAMS.iter().filter(|_| wanted != Wanted::Build) {
        let optional = program.name == "kube-controller-manager";
        let path = match &own {
            Some(directory) if !optional => directory.join(program.name),
            _ if optional && wanted == Wanted::Demo && go::find(&cache, program).is_none() => continue,
            _ => go::ensure(&cache, program)?,
        };
        programs.push(path);
    }
    if matches!(wanted, Wanted::Everything | Wanted::Cluster) {
        programs.push(go::ensure(&cache, &go::HELM)?);
    }
    if wanted == Wanted::Everything {
        for program in go::TEST_PROGRAMS {
            programs.push(go::ensure(&cache, program)?);
        }
    }
    if wanted == Wanted::Cluster {
        for program in go::CLUSTER_PROGRAMS {
            programs.push(go::ensure(&cache, program)?);
        }
        for program in debian::PROGRAMS {
            programs.push(debian::ensure(&cache, program)?);
        }
    }
    links::link(&paths::tools(), &nixl, &libclang, &programs)?;
    if wanted == Wanted::Everything {
        for peer in python_peer::PEERS {
            links::link_python(&paths::tools(), peer.nixl, &python_peer::ensure(&cache, peer)?)?;
        }
    }
    Ok(())
}

/// `cargo xtask tools`.
pub fn run() -> Result<()> {
    let started = Instant::now();
    ensure(Wanted::Everything)?;
    for (name, path) in found() {
        println!("{name:<24} {}", path.map_or("missing".to_owned(), |path| path.display().to_string()));
    }
    println!("All there after {}.", seconds(started.elapsed()));
    Ok(())
}

/// Each tool with the place where it is, for `doctor`: the directory in `KUBEBUILDER_ASSETS` first, then the cache.
pub fn found() -> Vec<(&'static str, Option<PathBuf>)> {
    let cache = paths::cache().ok();
    let wheel = |wheel| cache.as_ref().and_then(|cache| wheels::find(cache, wheel));
    let own = kubebuilder_assets();
    let mut found = vec![("nixl", wheel(&wheels::NIXL)), ("libclang", wheel(&wheels::LIBCLANG))];
    for peer in python_peer::PEERS {
        found.push((peer.name, cache.as_ref().and_then(|cache| python_peer::find(cache, peer))));
    }
    for program in go::PROGRAMS.iter().chain(go::TEST_PROGRAMS) {
        let from_user =
            own.as_ref().map(|directory| directory.join(program.name)).filter(|path| path.is_file());
        found.push((
            program.name,
            from_user.or_else(|| cache.as_ref().and_then(|cache| go::find(cache, program))),
        ));
    }
    for program in go::TEST_PROGRAMS.iter().chain([&go::HELM]) {
        found.push((program.name, cache.as_ref().and_then(|cache| go::find(cache, program))));
    }
    found
}

/// The user's directory, when it holds all three programs.
pub fn kubebuilder_assets() -> Option<PathBuf> {
    let directory = PathBuf::from(std::env::var_os(KUBEBUILDER_ASSETS)?);
    complete(&directory).then_some(directory)
}

fn complete(directory: &Path) -> bool {
    ["etcd", "kube-apiserver", "kubectl"].iter().all(|name| directory.join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_agree_with_the_pinned_files() {
        let tools = paths::root().join("xtask/tools");
        let read = |path: &str| std::fs::read_to_string(tools.join(path)).unwrap();
        assert!(read("etcd/go.mod").contains(&format!("go.etcd.io/etcd/server/v3 v{ETCD_VERSION}\n")));
        assert!(read("kubernetes/go.mod").contains(&format!("k8s.io/kubernetes v{KUBERNETES_VERSION}\n")));
        let containerd = format!("github.com/containerd/containerd/v2 v{CONTAINERD_VERSION}\n");
        assert!(read("containerd/go.mod").contains(&containerd));
        assert!(read("helm/go.mod").contains(&format!("helm.sh/helm/v4 v{HELM_VERSION}\n")));
        assert!(read("cni/go.mod").contains(&format!("containernetworking/plugins v{CNI_VERSION}\n")));
        let prometheus = format!("github.com/prometheus/prometheus v{PROMETHEUS_VERSION}\n");
        assert!(read("prometheus/go.mod").contains(&prometheus));
        let wheels = read("wheels.txt");
        assert!(wheels.contains(&format!("\nnixl-cu12=={NIXL_VERSION} ")));
        assert!(wheels.contains(&format!("\nlibclang=={LIBCLANG_VERSION} ")));
        let base = read("python-peer/base.txt");
        assert!(base.contains(&format!("\nai-dynamo-runtime=={DYNAMO_VERSION} ")));
        for peer in python_peer::PEERS {
            let nixl = peer.nixl;
            let pins = read(&format!("python-peer/nixl-{nixl}.txt"));
            assert!(["nixl", "nixl-cu12"].iter().all(|name| pins.contains(&format!("\n{name}=={nixl} "))));
            assert!(peer.name.ends_with(nixl), "{} is shown for NIXL {nixl}", peer.name);
        }
        assert_eq!(python_peer::PEERS.len(), 2);
    }
}
