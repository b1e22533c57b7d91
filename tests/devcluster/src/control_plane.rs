//! etcd, kube-apiserver and, when asked for, kube-controller-manager: started, made ready, stopped, and the API server
//! taken away and brought back on the same port with the same data.

mod audit;
mod programs;
mod seed;
mod stored;
mod template;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cluster_dir::{ClusterDir, private_dir};
use crate::identity::{self, ADMIN, Identity, write_secret};
use crate::kubectl::Kubectl;
use crate::ports::free_port;
use crate::process::Process;
use crate::rights::Asked;
use crate::spawn::Tie;
use crate::tool_paths::Assets;
use audit::Audit;
use programs::Programs;
use template::Template;

/// Whether etcd waits for the disk. Without fsync a crash of the *machine* loses data; a crash of a process does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtcdSync {
    /// As in production: about 2 ms per write here.
    Fsync,
    /// `--unsafe-no-fsync`: for tests and the demo.
    NoFsync,
}

/// The files that make a cluster ours. All are applied in this order, with kubectl.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    /// The directory of generated CRDs.
    pub crds: Option<PathBuf>,
    /// ClusterRoles and Roles; operator and agents are bound to those named `nixl-transfer-operator` and
    /// `nixl-transfer-agent`. Without a file both are bound to `cluster-admin`.
    pub rbac: Option<PathBuf>,
    /// Anything else, such as admission policies.
    pub others: Vec<PathBuf>,
}

impl Manifests {
    /// Those of this repository, as far as they exist.
    pub fn of_repository() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let existing = |path: &str| Some(root.join(path)).filter(|path| path.exists());
        Self {
            crds: existing("crds/generated"),
            rbac: existing("charts/nixl-transfer/files/rbac.yaml"),
            others: vec![],
        }
    }
}

/// What a control plane is made of.
#[derive(Clone, Debug)]
pub struct ControlPlaneOptions {
    pub assets: Assets,
    pub etcd_sync: EtcdSync,
    /// etcd's data elsewhere than in the cluster's directory (such as on tmpfs).
    pub etcd_data: Option<PathBuf>,
    /// Starts kube-controller-manager too: garbage collection, namespace deletion.
    pub controller_manager: bool,
    /// Node objects to create, with their labels. Each gets a user and a kubeconfig for its agent.
    pub nodes: BTreeMap<String, BTreeMap<String, String>>,
    /// Nodes that get a user, but no Node object yet.
    pub later_nodes: Vec<String>,
    pub manifests: Manifests,
    pub tie: Tie,
    /// Where the API server listens, and the name that clients know it by.
    pub address: IpAddr,
    /// Keeps a record of what our programs ask for, of every change of our own kinds and every event, see
    /// [`ControlPlane::audited`].
    pub audit: bool,
    /// How long all of it may take to be ready.
    pub ready_within: Duration,
}

impl ControlPlaneOptions {
    /// No nodes, the repository's manifests, no fsync, no controller manager, one minute.
    pub fn new(assets: Assets) -> Self {
        Self {
            assets,
            etcd_sync: EtcdSync::NoFsync,
            etcd_data: None,
            controller_manager: false,
            nodes: BTreeMap::new(),
            later_nodes: Vec::new(),
            manifests: Manifests::of_repository(),
            tie: Tie::DiesWithParent,
            address: Ipv4Addr::LOCALHOST.into(),
            audit: false,
            ready_within: Duration::from_secs(60),
        }
    }

    /// Adds a node with labels.
    pub fn node(mut self, name: &str, labels: &[(&str, &str)]) -> Self {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.nodes.insert(name.to_owned(), labels);
        self
    }
}

/// A running control plane. Dropping it kills its processes.
#[derive(Debug)]
pub struct ControlPlane {
    // In this order they are dropped: clients before servers.
    controller_manager: Option<Process>,
    api_server: Option<Process>,
    etcd: Option<Process>,
    programs: Programs,
    directory: PathBuf,
    registry: std::sync::Arc<crate::cluster_dir::Registry>,
    kubectl: Kubectl,
    options: ControlPlaneOptions,
    port: u16,
    audit: Audit,
}

impl ControlPlane {
    /// Starts everything and returns when CRDs are established and the Node objects exist.
    pub fn start(cluster: &ClusterDir, options: ControlPlaneOptions) -> Result<Self> {
        let deadline = Instant::now() + options.ready_within;
        let directory = cluster.path().join("control-plane");
        private_dir(&directory)?;
        let names: Vec<String> = options.nodes.keys().chain(&options.later_nodes).cloned().collect();
        let identities = identity::identities(&names)?;
        let programs = Programs::new(&directory, &options)?;
        write_secret(&programs.tokens(), &identity::token_file(&identities))?;

        let kubeconfig = identity::kubeconfig_path(&directory, ADMIN);
        let kubectl = Kubectl::new(&options.assets.kubectl, &kubeconfig, &directory.join("kubectl-cache"));
        let registry = cluster.registry().clone();
        let template = Template::of(&options);
        let is_seeded = template.as_ref().is_some_and(|template| template.copy_to(programs.etcd_data()));
        let etcd = Process::start(&programs.etcd(), &registry)?;
        let audit = Audit::new(programs.audit_log());
        let mut plane = Self {
            controller_manager: None,
            api_server: None,
            etcd: Some(etcd),
            programs,
            directory,
            registry,
            kubectl,
            options,
            port: 0,
            audit,
        };
        plane.first_api_server(&identities, deadline)?;
        if !is_seeded {
            seed::seed(&plane.kubectl, &plane.options)?;
            if let Some(template) = template {
                plane.keep(&template)?;
            }
        }
        seed::nodes(&plane.kubectl, &plane.options)?;
        if plane.options.controller_manager {
            plane.controller_manager =
                Some(Process::start(&plane.programs.controller_manager(&kubeconfig)?, &plane.registry)?);
        }
        Ok(plane)
    }

    /// Ends the programs for a moment, to keep what etcd holds for other clusters.
    fn keep(&mut self, template: &Template) -> Result<()> {
        self.pause();
        if self.etcd.take().is_some_and(|etcd| etcd.stop(Duration::from_secs(5))) {
            template.keep(self.programs.etcd_data());
        }
        self.etcd = Some(Process::start(&self.programs.etcd(), &self.registry)?);
        self.resume()
    }

    /// kubectl as administrator.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl.run(arguments)
    }

    /// kubectl as administrator, for commands with input or with an own life (`--watch`).
    pub fn admin(&self) -> &Kubectl {
        &self.kubectl
    }

    /// kubectl as another user, such as `agent_user("node-a")`.
    pub fn kubectl_as(&self, user: &str) -> Kubectl {
        Kubectl::new(
            &self.options.assets.kubectl,
            &self.kubeconfig(user),
            &self.directory.join("kubectl-cache"),
        )
    }

    /// The kubeconfig file of [`ADMIN`], [`crate::OPERATOR`] or [`crate::agent_user`].
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        identity::kubeconfig_path(&self.directory, user)
    }

    /// Applies files or directories.
    pub fn apply(&self, paths: &[&Path]) -> Result<String> {
        let mut arguments = vec!["apply".to_owned()];
        arguments.extend(paths.iter().map(|path| format!("--filename={}", path.display())));
        self.kubectl.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Applies one document (YAML or JSON).
    pub fn apply_text(&self, document: &str) -> Result<String> {
        self.kubectl.run_with_input(&["apply", "-f", "-"], Some(document))
    }

    /// Creates a Node object.
    pub fn create_node(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<()> {
        self.apply_text(&seed::node(name, labels).to_string()).map(drop)
    }

    /// Ends the API server with SIGTERM (or, when it drains too long, SIGKILL). Watches break; etcd keeps the data.
    pub fn pause(&mut self) {
        if let Some(process) = self.api_server.take() {
            process.stop(Duration::from_secs(2));
        }
    }

    /// Starts the API server again: same port, same data, same tokens.
    pub fn resume(&mut self) -> Result<()> {
        let deadline = Instant::now() + self.options.ready_within;
        let audited = self.audit.length();
        if self.api_server.is_none() {
            self.api_server = Some(Process::start(&self.programs.api_server(self.port), &self.registry)?);
        }
        let ready = self.wait_ready(deadline);
        self.audit.was_starting(audited);
        ready
    }

    /// Ends it all: agents and operator should be gone before.
    pub fn stop(mut self) {
        // etcd's data are not used again: nothing is worth the time of a graceful end.
        for process in
            [self.controller_manager.take(), self.api_server.take(), self.etcd.take()].into_iter().flatten()
        {
            process.stop(Duration::ZERO);
        }
    }

    /// The port of the API server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the API server was asked for, one JSON event of `audit.k8s.io/v1` a line; refused requests too.
    pub fn audited(&self) -> Result<String> {
        self.audit.text()
    }

    /// What of it operator and agents asked for, and with which right.
    pub fn asked(&self) -> Result<Asked> {
        self.audit.asked()
    }

    /// Shows `see` the key and the bytes of all that was ever stored, every version of every object.
    pub fn stored(&self, see: impl FnMut(&str, &[u8])) -> Result<()> {
        stored::each(self.programs.etcd_data(), see)
    }

    /// Each user's name and token.
    pub fn tokens(&self) -> Result<BTreeMap<String, String>> {
        Ok(identity::tokens(&std::fs::read_to_string(self.programs.tokens())?))
    }

    /// The process ids by name.
    pub fn pids(&self) -> BTreeMap<String, i32> {
        let processes = [&self.etcd, &self.api_server, &self.controller_manager];
        processes.into_iter().flatten().map(|process| (process.name().to_owned(), process.pid())).collect()
    }

    /// Where the logs are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn tie(&self) -> Tie {
        self.options.tie
    }

    pub(crate) fn registry(&self) -> &std::sync::Arc<crate::cluster_dir::Registry> {
        &self.registry
    }

    pub(crate) fn leave(mut self) {
        for process in
            [self.controller_manager.take(), self.api_server.take(), self.etcd.take()].into_iter().flatten()
        {
            process.leave();
        }
    }

    /// The first start chooses the port; somebody else may take it in the moment between choosing and binding.
    fn first_api_server(&mut self, identities: &[Identity], deadline: Instant) -> Result<()> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            self.port = free_port()?;
            let process = Process::start(&self.programs.api_server(self.port), &self.registry)?;
            // The certificate is written before the port is bound.
            let certificate = self.programs.certificate();
            let at = SocketAddr::from((self.options.address, self.port));
            let listening =
                process.wait_ready(deadline, || certificate.exists() && TcpStream::connect(at).is_ok());
            match listening {
                Ok(()) => {
                    self.api_server = Some(process);
                    break;
                }
                Err(error) if attempts < 3 && error.to_string().contains("address already in use") => {
                    continue;
                }
                Err(error) => return Err(error),
            }
        }
        self.write_kubeconfigs(identities)?;
        self.wait_ready(deadline)
    }

    /// The generated certificate file holds the server's certificate and then the one that signed it: clients trust the second.
    fn write_kubeconfigs(&self, identities: &[Identity]) -> Result<()> {
        let chain = std::fs::read_to_string(self.programs.certificate())?;
        let authority = self.directory.join("ca.crt");
        std::fs::write(&authority, last_certificate(&chain).context("the API server wrote no certificate")?)?;
        let server = format!("https://{}", SocketAddr::from((self.options.address, self.port)));
        for identity in identities {
            let path = self.kubeconfig(&identity.user);
            write_secret(&path, &identity::kubeconfig(identity, &server, &authority))?;
        }
        Ok(())
    }

    fn wait_ready(&self, deadline: Instant) -> Result<()> {
        let process = self.api_server.as_ref().context("the API server was not started")?;
        let request = ["get", "--raw=/readyz", "--request-timeout=2s"];
        // Each kubectl takes a processor for 50 ms, from the very program that it waits for.
        let pause = Duration::from_millis(150);
        process.wait_ready_every(pause, deadline, || self.kubectl.run(&request).is_ok())
    }
}

fn last_certificate(chain: &str) -> Option<&str> {
    chain.rfind("-----BEGIN CERTIFICATE-----").map(|start| &chain[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signer_stands_last() {
        let one = "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n";
        let two = "-----BEGIN CERTIFICATE-----\nBB\n-----END CERTIFICATE-----\n";
        assert_eq!(last_certificate(&format!("{one}{two}")), Some(two));
        assert_eq!(last_certificate(""), None);
    }
}
