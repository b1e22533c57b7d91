//! A node's plan and the configuration of what it runs: containerd, kubelet, kube-proxy, and CNI's bridge. Writes files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::certificates::PROXY;
use super::control_plane::program;
use super::images::PAUSE;
use super::network::Network;
use super::plan::{After, Mount, Plan};
use super::record::{Place, Record, private_directory};
use crate::paths;

pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// What a kubelet wants the kernel to be set to, on the whole machine.
const WANTED_OF_KERNEL: &[(&str, &str)] = &[
    ("/proc/sys/vm/overcommit_memory", "1"),
    ("/proc/sys/vm/panic_on_oom", "0"),
    ("/proc/sys/kernel/panic", "10"),
    ("/proc/sys/kernel/panic_on_oops", "1"),
    ("/proc/sys/kernel/keys/root_maxkeys", "1000000"),
    ("/proc/sys/kernel/keys/root_maxbytes", "25000000"),
];

/// `node-a`, `node-b`, …, and after `node-z` `node-27`.
pub fn name(at: usize) -> String {
    match u8::try_from(at) {
        Ok(at @ 0..26) => format!("node-{}", char::from(b'a' + at)),
        _ => format!("node-{}", at + 1),
    }
}

pub fn names(count: usize) -> Vec<String> {
    (0..count).map(name).collect()
}

/// Where the files of a node's `/var/lib` are on this machine.
pub fn var_lib(place: &Place, node: &str) -> std::path::PathBuf {
    place.space(node).join("var-lib")
}

/// Writes its configuration and says what it shall run.
pub fn plan(place: &Place, record: &Record, at: usize) -> Result<Plan> {
    let (node, network) = (name(at), Network(record.network));
    let directory = place.space(&node);
    for part in ["var-lib", "var-log", "cni"] {
        private_directory(&directory.join(part))?;
    }
    // Pods of any user pass through it on their way to their volumes.
    fs::set_permissions(directory.join("var-lib"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let path = |name: &str| directory.join(name).display().to_string();
    let file = |name: &str, text: String| -> Result<String> {
        fs::write(directory.join(name), text).with_context(|| format!("cannot write {name} of {node}"))?;
        Ok(path(name))
    };
    file("cni/10-bridge.conflist", pretty(&cni(network, at)))?;
    file("resolv.conf", "# This cluster has no DNS.\n".into())?;
    let containerd = file("containerd.toml", containerd(&directory, snapshotter(&directory)))?;
    let kubelet = file("kubelet.json", pretty(&kubelet(place, record, &node)))?;
    let proxy = file("kube-proxy.json", pretty(&kube_proxy(place, network)))?;
    let role = if at == 0 { "source" } else { "receiver" };
    let kubelet = vec![
        format!("--config={kubelet}"),
        format!("--kubeconfig={}", place.kubeconfig(&node).display()),
        format!("--hostname-override={node}"),
        format!("--node-ip={}", network.node(at)),
        format!("--node-labels=role={role}"),
    ];
    let proxy = vec![format!("--config={proxy}"), format!("--hostname-override={node}")];
    let program = |name: &str, arguments, after| program(place, &node, name, arguments, after);
    Ok(Plan {
        hostname: node.clone(),
        mounts: vec![
            Mount::Empty { at: "/run".into() },
            Mount::Bind { what: path("var-lib"), at: "/var/lib".into() },
            Mount::Bind { what: path("var-log"), at: "/var/log".into() },
        ],
        pretended: WANTED_OF_KERNEL.iter().map(|(file, value)| ((*file).into(), (*value).into())).collect(),
        programs: vec![
            program("containerd", vec![format!("--config={containerd}")], None),
            program("kubelet", kubelet, Some(After::File(CONTAINERD_SOCKET.into()))),
            program("kube-proxy", proxy, Some(After::Server(network.api_server()))),
        ],
    })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn cni(network: Network, at: usize) -> Value {
    json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
         "ipam": {"type": "host-local", "ranges": [[{"subnet": network.pods(at)}]], "routes": [{"dst": "0.0.0.0/0"}]}},
        {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}},
    ]})
}

/// An overlay cannot stand on an overlay, as in a container: then each layer is a copy.
pub fn snapshotter(directory: &Path) -> &'static str {
    let overlay = rustix::fs::statfs(directory).is_ok_and(|of| of.f_type == OVERLAYFS_MAGIC);
    if overlay { "native" } else { "overlayfs" }
}

const OVERLAYFS_MAGIC: rustix::fs::FsWord = 0x794c_7630;

/// `restrict_oom_score_adj`: without CAP_SYS_RESOURCE, as in most containers, runc may not lower what it inherits.
fn containerd(directory: &Path, snapshotter: &str) -> String {
    let (bin, cni) = (paths::tools().join("bin"), directory.join("cni"));
    let (bin, cni) = (bin.display(), cni.display());
    format!(
        "version = 3
root = '/var/lib/containerd'
state = '/run/containerd'
[grpc]
  address = '{CONTAINERD_SOCKET}'
[plugins.'io.containerd.cri.v1.images']
  snapshotter = '{snapshotter}'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = '{PAUSE}'
[plugins.'io.containerd.cri.v1.runtime']
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['{bin}']
    conf_dir = '{cni}'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = '{bin}/runc'
      SystemdCgroup = false
"
    )
}

fn kubelet(place: &Place, record: &Record, node: &str) -> Value {
    let certificate = |name: String| place.certificates().join(name);
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": certificate("ca.crt".into())},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": certificate(format!("{node}-kubelet.crt")),
        "tlsPrivateKeyFile": certificate(format!("{node}-kubelet.key")),
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "resolvConf": place.space(node).join("resolv.conf"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}/{node}", record.tag),
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": [],
        "oomScoreAdj": 0,
        // The disk is the machine's: its user knows how full it is.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%",
                         "nodefs.inodesFree": "1%", "imagefs.inodesFree": "1%"},
        "imageGCHighThresholdPercent": 100,
    })
}

fn kube_proxy(place: &Place, network: Network) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": place.kubeconfig(PROXY)},
        "mode": "nftables",
        "clusterCIDR": network.all(),
        "oomScoreAdj": 0,
        // Connection tracking has limits that only the machine itself may change.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        let mut all = names(200);
        assert_eq!((all[0].as_str(), all[25].as_str(), all[26].as_str()), ("node-a", "node-z", "node-27"));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 200);
    }
}
