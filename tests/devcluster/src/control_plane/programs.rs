//! The command lines of the control plane's programs. Pure but for creating their directories.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{ControlPlaneOptions, EtcdSync};
use crate::cluster_dir::private_dir;
use crate::process::Launch;
use crate::spawn::Tie;
use crate::tool_paths::Assets;

/// `sun_path` holds 108 bytes, the last one zero.
const SOCKET_PATH_BYTES: usize = 107;

#[derive(Clone, Debug)]
pub(super) struct Programs {
    assets: Assets,
    directory: PathBuf,
    etcd_data: PathBuf,
    sync: EtcdSync,
    tie: Tie,
    address: IpAddr,
    audit: bool,
}

/// The metadata of each request of our programs, and of each that would change one of our objects or tell of it, when it has been
/// answered.
const AUDIT_POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [
  {"level": "Metadata", "userGroups": ["nixl-transfer:operators", "nixl-transfer:agents"]},
  {"level": "Metadata", "verbs": ["create", "update", "patch", "delete"], "resources": [{"group": "nixl-transfer.io"}, {"group": "events.k8s.io"}]},
  {"level": "None"}]}"#;

impl Programs {
    pub(super) fn new(directory: &Path, options: &ControlPlaneOptions) -> Result<Self> {
        let programs = Self {
            assets: options.assets.clone(),
            directory: directory.to_owned(),
            etcd_data: options.etcd_data.clone().unwrap_or_else(|| directory.join("etcd")),
            sync: options.etcd_sync,
            tie: options.tie,
            address: options.address,
            audit: options.audit,
        };
        let socket = programs.etcd_socket();
        let length = socket.as_os_str().len();
        ensure!(
            length <= SOCKET_PATH_BYTES,
            "{} is too long for a socket ({length} bytes, {SOCKET_PATH_BYTES} at most): choose a shorter temporary directory",
            socket.display()
        );
        private_dir(&programs.etcd_data)?;
        if programs.audit {
            std::fs::write(programs.audit_policy(), AUDIT_POLICY)?;
        }
        Ok(programs)
    }

    pub(super) fn etcd_data(&self) -> &Path {
        &self.etcd_data
    }

    pub(super) fn tokens(&self) -> PathBuf {
        self.directory.join("tokens.csv")
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.directory.join("certificates/apiserver.crt")
    }

    fn key(&self) -> PathBuf {
        self.directory.join("certificates/apiserver.key")
    }

    fn audit_policy(&self) -> PathBuf {
        self.directory.join("audit-policy.json")
    }

    pub(super) fn audit_log(&self) -> PathBuf {
        self.directory.join("audit.log")
    }

    fn etcd_socket(&self) -> PathBuf {
        self.directory.join("etcd.sock")
    }

    /// Clients reach etcd through a socket in a directory of mode 0700: it has no other access control. The peer address is
    /// never dialled by a single member; its advertised form must only be well formed and the same in both places.
    pub(super) fn etcd(&self) -> Launch {
        let mut arguments = vec![
            flag("data-dir", &self.etcd_data),
            format!("--listen-client-urls=unix://{}", self.etcd_socket().display()).into(),
            "--advertise-client-urls=http://localhost:2379".into(),
            "--listen-peer-urls=http://127.0.0.1:0".into(),
            "--initial-advertise-peer-urls=http://127.0.0.1:2380".into(),
            "--initial-cluster=default=http://127.0.0.1:2380".into(),
            "--log-level=warn".into(),
        ];
        if self.sync == EtcdSync::NoFsync {
            arguments.push("--unsafe-no-fsync".into());
        }
        self.launch("etcd", &self.assets.etcd, arguments)
    }

    /// The serving key, which the API server makes itself before it reads its flags' files, also signs service-account tokens.
    pub(super) fn api_server(&self, port: u16) -> Launch {
        let certificates = self.directory.join("certificates");
        let mut arguments = vec![
            format!("--etcd-servers=unix://{}", self.etcd_socket().display()).into(),
            flag("cert-dir", &certificates),
            format!("--secure-port={port}").into(),
            format!("--bind-address={}", self.address).into(),
            format!("--advertise-address={}", self.address).into(),
            "--endpoint-reconciler-type=none".into(),
            "--service-cluster-ip-range=10.96.0.0/24".into(),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            flag("service-account-key-file", &self.key()),
            flag("service-account-signing-key-file", &self.key()),
            "--authorization-mode=Node,RBAC".into(),
            flag("token-auth-file", &self.tokens()),
            "--allow-privileged".into(),
        ];
        if self.audit {
            arguments.push(flag("audit-policy-file", &self.audit_policy()));
            arguments.push(flag("audit-log-path", &self.audit_log()));
        }
        let mut launch = self.launch("kube-apiserver", &self.assets.kube_apiserver, arguments);
        // Its first seconds are half of its work here, and a sixth of that is collecting garbage.
        launch.environment.push(("GOGC".into(), "400".into()));
        launch
    }

    pub(super) fn controller_manager(&self, kubeconfig: &Path) -> Result<Launch> {
        let program = self.assets.kube_controller_manager.as_ref();
        let program = program.context("kube-controller-manager is missing: run `cargo xtask tools`")?;
        let arguments = vec![
            flag("kubeconfig", kubeconfig),
            "--secure-port=0".into(),
            "--leader-elect=false".into(),
            // Node lifecycle would taint Nodes that no kubelet reports for, and evict.
            "--controllers=garbage-collector-controller,namespace-controller,serviceaccount-controller"
                .into(),
        ];
        Ok(self.launch("kube-controller-manager", program, arguments))
    }

    fn launch(&self, name: &str, program: &Path, arguments: Vec<OsString>) -> Launch {
        Launch {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments,
            environment: Vec::new(),
            directory: self.directory.clone(),
            log: self.directory.join(format!("{name}.log")),
            tie: self.tie,
        }
    }
}

fn flag(name: &str, value: &Path) -> OsString {
    let mut flag = OsString::from(format!("--{name}="));
    flag.push(value);
    flag
}
