//! Who is who in the cluster: an authority, certificates for servers and users, and a kubeconfig for each user.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::network::{API_SERVICE, Network};
use super::record::{Place, private_directory};
use crate::paths;

/// In `system:masters`.
pub const ADMIN: &str = "admin";
pub const CONTROLLER_MANAGER: &str = "kube-controller-manager";
pub const SCHEDULER: &str = "kube-scheduler";
pub const PROXY: &str = "kube-proxy";

/// Makes all of them anew.
pub fn make(place: &Place, network: Network, nodes: &[String]) -> Result<()> {
    let directory = place.certificates();
    private_directory(&directory)?;
    let wanted = directory.join("wanted.json");
    std::fs::write(&wanted, wanted_ones(network, nodes).to_string())?;
    let mut command = Command::new(paths::tools().join("bin/certificates"));
    let output = command.arg(&directory).stdin(File::open(&wanted)?).stderr(Stdio::piped()).output();
    let output = output.context("cannot start the program that makes certificates")?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    for user in
        [ADMIN, CONTROLLER_MANAGER, SCHEDULER, PROXY].into_iter().chain(nodes.iter().map(String::as_str))
    {
        let text = format!("{:#}\n", kubeconfig(&directory, network, user));
        write_secret(&place.kubeconfig(user), &text)?;
    }
    Ok(())
}

fn wanted_ones(network: Network, nodes: &[String]) -> Value {
    let client = |name: &str, user: &str, group: &str| json!({"name": name, "user": user, "group": group});
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1"];
    let hub = network.hub();
    let hosts: Vec<&str> = names.into_iter().chain([API_SERVICE, &hub]).collect();
    let mut all = vec![
        json!({"name": "kube-apiserver", "user": "kube-apiserver", "hosts": hosts}),
        // Signs the tokens of service accounts; its certificate is of no use.
        client("service-accounts", "service-accounts", ""),
        client("kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
        client(ADMIN, "kubernetes-admin", "system:masters"),
        client(CONTROLLER_MANAGER, "system:kube-controller-manager", ""),
        client(SCHEDULER, "system:kube-scheduler", ""),
        client(PROXY, "system:kube-proxy", ""),
    ];
    for (at, node) in nodes.iter().enumerate() {
        all.push(client(node, &format!("system:node:{node}"), "system:nodes"));
        let hosts = [node.clone(), network.node(at)];
        all.push(json!({"name": format!("{node}-kubelet"), "user": format!("system:node:{node}"),
                        "group": "system:nodes", "hosts": hosts}));
    }
    Value::Array(all)
}

fn kubeconfig(directory: &Path, network: Network, user: &str) -> Value {
    let file = |name: String| directory.join(name);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "nixl-transfer",
        "clusters": [{"name": "nixl-transfer", "cluster": {
            "server": format!("https://{}", network.api_server()),
            "certificate-authority": file("ca.crt".into())}}],
        "users": [{"name": user, "user": {
            "client-certificate": file(format!("{user}.crt")), "client-key": file(format!("{user}.key"))}}],
        "contexts": [{"name": "nixl-transfer", "context": {"cluster": "nixl-transfer", "user": user}}],
    })
}

/// Only root reads it.
pub fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let file = File::options().create(true).write(true).truncate(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file.write_all(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_of_a_kubeconfig_gets_a_certificate_and_servers_know_their_addresses() {
        let nodes = ["node-a".to_owned(), "node-b".to_owned()];
        let wanted = wanted_ones(Network(79), &nodes);
        let one = |name: &str| wanted.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
        assert_eq!(one("node-b")["user"], "system:node:node-b");
        assert_eq!(one("node-b")["group"], "system:nodes");
        assert_eq!(one("node-b-kubelet")["hosts"], json!(["node-b", "10.79.0.2"]));
        assert!(one("kube-apiserver")["hosts"].as_array().unwrap().contains(&json!("10.79.0.254")));
        for user in [ADMIN, CONTROLLER_MANAGER, SCHEDULER, PROXY, "node-a"] {
            let config = kubeconfig(Path::new("/x"), Network(79), user);
            assert_eq!(
                config["users"][0]["user"]["client-key"],
                format!("/x/{}.key", one(user)["name"].as_str().unwrap())
            );
        }
    }
}
