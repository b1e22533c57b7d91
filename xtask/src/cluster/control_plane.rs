//! The hub's plan: etcd, kube-apiserver, kube-controller-manager and kube-scheduler, each as in a real cluster, with TLS,
//! client certificates and signed tokens, and an audit of what the chart's own accounts ask for.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use devcluster::service_account;
use serde_json::{Value, json};

use super::certificates::{CONTROLLER_MANAGER, SCHEDULER};
use super::network::{API_PORT, Network, SERVICES};
use super::plan::{After, Mount, Plan, Program};
use super::record::Place;
use crate::paths;

/// The name of the space.
pub const HUB: &str = "hub";

const ETCD: &str = "127.0.0.1:2379";

/// Where the API server writes down what operator and agents ask for.
pub fn audit_log(place: &Place) -> PathBuf {
    place.space(HUB).join("audit.log")
}

fn audit_policy(place: &Place) -> PathBuf {
    place.space(HUB).join("audit-policy.json")
}

/// Who asked for what, once each, and not what was answered.
fn audit_rules() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata", "users": [service_account("operator"), service_account("agent")]}, {"level": "None"}],
    })
}

/// Writes the configuration of what the hub runs, and says what that is.
pub fn plan(place: &Place, network: Network) -> Result<Plan> {
    fs::write(audit_policy(place), format!("{:#}\n", audit_rules()))?;
    Ok(programs(place, network))
}

fn programs(place: &Place, network: Network) -> Plan {
    let certificate = |name: &str| place.certificates().join(name).display().to_string();
    let config = |user: &str| place.kubeconfig(user).display().to_string();
    let after = Some(After::Server(network.api_server()));
    // Loopback is the hub's own: nobody else reaches etcd.
    let etcd = [
        format!("--data-dir={}", place.space(HUB).join("etcd").display()),
        format!("--listen-client-urls=http://{ETCD}"),
        format!("--advertise-client-urls=http://{ETCD}"),
        "--listen-peer-urls=http://127.0.0.1:2380".into(),
        "--log-level=warn".into(),
        "--unsafe-no-fsync".into(),
    ];
    let hub = network.hub();
    let api_server = [
        format!("--etcd-servers=http://{ETCD}"),
        format!("--bind-address={hub}"),
        format!("--advertise-address={hub}"),
        format!("--secure-port={API_PORT}"),
        format!("--tls-cert-file={}", certificate("kube-apiserver.crt")),
        format!("--tls-private-key-file={}", certificate("kube-apiserver.key")),
        format!("--client-ca-file={}", certificate("ca.crt")),
        format!("--kubelet-certificate-authority={}", certificate("ca.crt")),
        format!("--kubelet-client-certificate={}", certificate("kubelet-client.crt")),
        format!("--kubelet-client-key={}", certificate("kubelet-client.key")),
        // There is no DNS: names of nodes lead nowhere.
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={}", certificate("service-accounts.key")),
        format!("--service-account-signing-key-file={}", certificate("service-accounts.key")),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged".into(),
        format!("--audit-policy-file={}", audit_policy(place).display()),
        format!("--audit-log-path={}", audit_log(place).display()),
    ];
    let client = |name: &str| {
        ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
            .map(|flag| format!("--{flag}={}", config(name)))
            .into_iter()
            .chain(["--leader-elect=false".into(), "--bind-address=127.0.0.1".into()])
    };
    let controller_manager = client(CONTROLLER_MANAGER).chain([
        "--use-service-account-credentials".into(),
        format!("--root-ca-file={}", certificate("ca.crt")),
        format!("--service-account-private-key-file={}", certificate("service-accounts.key")),
        format!("--cluster-signing-cert-file={}", certificate("ca.crt")),
        format!("--cluster-signing-key-file={}", certificate("ca.key")),
    ]);
    let program = |name: &str, arguments: Vec<String>, after: Option<After>| {
        program(place, HUB, name, arguments, after)
    };
    Plan {
        hostname: HUB.to_owned(),
        mounts: vec![Mount::Empty { at: "/run".into() }],
        pretended: Vec::new(),
        programs: vec![
            program("etcd", etcd.into(), None),
            program("kube-apiserver", api_server.into(), Some(After::Server(ETCD.into()))),
            program(CONTROLLER_MANAGER, controller_manager.collect(), after.clone()),
            program(SCHEDULER, client(SCHEDULER).collect(), after),
        ],
    }
}

/// One of the programs that the tools step got, with a log in its space's directory.
pub fn program(
    place: &Place,
    space: &str,
    name: &str,
    arguments: Vec<String>,
    after: Option<After>,
) -> Program {
    let bin = paths::tools().join("bin");
    Program {
        name: name.to_owned(),
        command: [bin.join(name).display().to_string()].into_iter().chain(arguments).collect(),
        environment: vec![
            ("PATH".into(), format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display())),
            ("HOME".into(), "/root".into()),
        ],
        log: place.space(space).join(format!("{name}.log")).display().to_string(),
        after,
    }
}
