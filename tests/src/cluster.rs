//! One cluster for one test: started with what the test needs, ended when it is dropped, its logs shown when it failed.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use devcluster::{
    ADMIN, Agent, AgentOptions, Assets, ClusterDir, ControlPlane, ControlPlaneOptions, NixlPaths, Operator,
    OperatorOptions, Prometheus, Target, Volume, binary,
};
use kube::{Api, Client, Config, config::KubeConfigOptions};
use nixl_transfer_crds::{TransferNode, condition};
use serde_json::{Value, json};

use crate::recording::Recording;

/// Namespace of the jobs in tests.
pub const NAMESPACE: &str = "default";

/// What a test needs.
pub struct Setup {
    nodes: Vec<(String, Vec<(&'static str, &'static str)>)>,
    without_agent: Vec<String>,
    agent_config: BTreeMap<String, Value>,
    volumes: BTreeMap<String, Vec<Volume>>,
    agent_binaries: BTreeMap<String, PathBuf>,
    control_address: Option<IpAddr>,
    agent_places: BTreeMap<String, (IpAddr, Vec<String>)>,
    operator_arguments: Vec<String>,
    controller_manager: bool,
    start_operator: bool,
    install: bool,
    audit: bool,
}

impl Setup {
    /// Nodes of these names: the first is labelled `role: source`, the others `role: receiver`.
    pub fn nodes(names: &[&str]) -> Self {
        let role = |at: usize| if at == 0 { "source" } else { "receiver" };
        Self {
            nodes: names
                .iter()
                .enumerate()
                .map(|(at, name)| ((*name).into(), vec![("role", role(at))]))
                .collect(),
            without_agent: Vec::new(),
            agent_config: BTreeMap::new(),
            volumes: BTreeMap::new(),
            agent_binaries: BTreeMap::new(),
            control_address: None,
            agent_places: BTreeMap::new(),
            operator_arguments: vec!["--backoff-base-seconds=1".into()],
            controller_manager: false,
            start_operator: true,
            install: true,
            audit: false,
        }
    }

    /// A Node object whose agent is not started.
    pub fn node_without_agent(mut self, name: &str) -> Self {
        self.nodes.push((name.into(), vec![("role", "receiver")]));
        self.without_agent.push(name.into());
        self
    }

    /// Merges keys into the configuration of a node's agent.
    pub fn agent_config(mut self, node: &str, config: Value) -> Self {
        self.agent_config.insert(node.into(), config);
        self
    }

    /// The volumes of a node's agent, instead of one named `data`.
    pub fn volumes(mut self, node: &str, volumes: Vec<Volume>) -> Self {
        self.volumes.insert(node.into(), volumes);
        self
    }

    /// Another program for a node's agent, such as a script that prepares its surroundings.
    pub fn agent_binary(mut self, node: &str, program: PathBuf) -> Self {
        self.agent_binaries.insert(node.into(), program);
        self
    }

    /// Where the API server listens, instead of the loopback address: for agents that have a loopback of their own.
    pub fn control_address(mut self, address: IpAddr) -> Self {
        self.control_address = Some(address);
        self
    }

    /// An agent in a network namespace: its address there, and the command that enters it and becomes the agent.
    pub fn agent_place(mut self, node: &str, address: IpAddr, enter: Vec<String>) -> Self {
        self.agent_places.insert(node.into(), (address, enter));
        self
    }

    /// An argument for the operator's command line.
    pub fn operator_argument(mut self, argument: &str) -> Self {
        self.operator_arguments.push(argument.into());
        self
    }

    /// Starts kube-controller-manager too, for the deletion of namespaces.
    pub fn with_controller_manager(mut self) -> Self {
        self.controller_manager = true;
        self
    }

    /// Keeps a record of every change, see `ControlPlane::audited`. A run of the whole suite does it for all clusters.
    pub fn audited(mut self) -> Self {
        self.audit = true;
        self
    }

    /// Leaves the operator to the test.
    pub fn without_operator(mut self) -> Self {
        self.start_operator = false;
        self
    }

    /// A cluster in which nixl-transfer is not installed: no CRDs.
    pub fn without_crds(mut self) -> Self {
        self.install = false;
        self
    }

    /// Starts everything; returns when all of it is ready.
    pub async fn start(self) -> Result<Cluster> {
        // The processes are tied to the thread that starts them: it must be one that lives as long as the test.
        let parent = std::env::temp_dir().join("nixl-transfer-tests");
        let dir = ClusterDir::create(&parent, "cluster")?;
        let mut options = ControlPlaneOptions::new(Assets::find()?);
        options.controller_manager = self.controller_manager;
        let recording = Recording::begin(&dir)?;
        options.audit = self.audit || recording.is_some();
        if !self.install {
            options.manifests.crds = None;
        }
        options.address = self.control_address.unwrap_or(options.address);
        for (name, labels) in &self.nodes {
            options = options.node(name, labels);
        }
        let plane = ControlPlane::start(&dir, options)?;
        let mut cluster =
            Cluster { agents: BTreeMap::new(), operator: None, client: None, recording, plane, dir };
        for (name, _) in self.nodes.iter().filter(|(name, _)| !self.without_agent.contains(name)) {
            let program =
                self.agent_binaries.get(name).cloned().map_or_else(|| binary("transfer-agent"), Ok)?;
            let mut options = AgentOptions::new(program, name, NixlPaths::find()?);
            options.extra_config = self.agent_config.get(name).cloned().unwrap_or_else(|| json!({}));
            if let Some(volumes) = self.volumes.get(name) {
                options.volumes.clone_from(volumes);
            }
            if let Some((address, enter)) = self.agent_places.get(name) {
                (options.address, options.start_with) = (*address, enter.clone());
            }
            let agent = Agent::start(&cluster.dir, &cluster.plane, options)?;
            cluster.agents.insert(name.clone(), agent);
        }
        if self.start_operator {
            let mut options = OperatorOptions::new(binary("transfer-operator")?);
            options.extra_arguments = self.operator_arguments;
            let operator = Operator::start(&cluster.dir, &cluster.plane, options)?;
            operator.wait_ready().context("operator")?;
            cluster.operator = Some(operator);
        }
        for (name, agent) in &cluster.agents {
            agent.wait_ready().with_context(|| format!("agent of {name}"))?;
        }
        cluster.client = Some(cluster.connect().await?);
        for name in cluster.agents.keys() {
            cluster.wait_node_ready(name, Duration::from_secs(30)).await?;
        }
        Ok(cluster)
    }
}

/// A running cluster. Fields are dropped in this order: agents and operator before the control plane.
pub struct Cluster {
    /// The agents by node name.
    pub agents: BTreeMap<String, Agent>,
    /// The operator, unless the test leaves it out.
    pub operator: Option<Operator>,
    client: Option<Client>,
    recording: Option<Recording>,
    /// etcd and the API server.
    pub plane: ControlPlane,
    dir: ClusterDir,
}

impl Cluster {
    /// A client as administrator.
    pub fn client(&self) -> Client {
        self.client.clone().expect("set by start, before the test gets the cluster")
    }

    /// The directory of the cluster, with all logs.
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// The agent of a node.
    pub fn agent(&self, node: &str) -> &Agent {
        self.agents.get(node).unwrap_or_else(|| panic!("the test has no agent on {node}"))
    }

    /// The agent of a node, to kill or restart it.
    pub fn agent_mut(&mut self, node: &str) -> &mut Agent {
        self.agents.get_mut(node).unwrap_or_else(|| panic!("the test has no agent on {node}"))
    }

    /// The operator, to kill or restart it.
    pub fn operator_mut(&mut self) -> &mut Operator {
        self.operator.as_mut().expect("the test started an operator")
    }

    /// An operator beside that of the cluster; it need not be ready yet.
    pub fn another_operator(&self, options: OperatorOptions) -> Result<Operator> {
        Operator::start(&self.dir, &self.plane, options)
    }

    /// A Prometheus that reads the operator and every agent, and knows these rules.
    pub fn prometheus(&self, rules: &Path) -> Result<Prometheus> {
        let agents = self.agents.iter().map(|(node, agent)| (node.as_str(), agent.port()));
        let targets: Vec<Target<'_>> =
            agents.chain(self.operator.iter().map(|operator| ("", operator.port()))).collect();
        Prometheus::start(&self.dir, &self.plane, &targets, rules)
    }

    /// Starts an operator; it need not become ready.
    pub fn start_operator(&mut self, options: OperatorOptions) -> Result<()> {
        self.operator = Some(Operator::start(&self.dir, &self.plane, options)?);
        Ok(())
    }

    /// Waits until the agent of a node says that it can take transfers.
    pub async fn wait_node_ready(&self, name: &str, within: Duration) -> Result<()> {
        self.wait_node(name, within, "Ready", |node| {
            let status = node.status.as_ref();
            status.is_some_and(|status| condition::is_true(&status.conditions, condition::READY))
        })
        .await
    }

    /// Waits until a TransferNode fulfils `until`.
    pub async fn wait_node(
        &self,
        name: &str,
        within: Duration,
        what: &str,
        until: impl Fn(&TransferNode) -> bool + Send,
    ) -> Result<()> {
        let nodes: Api<TransferNode> = Api::all(self.client());
        let waited = kube::runtime::wait::await_condition(nodes, name, |node: Option<&TransferNode>| {
            node.is_some_and(&until)
        });
        tokio::time::timeout(within, waited)
            .await
            .with_context(|| format!("TransferNode {name} is not {what}:\n{}", self.logs()))??;
        Ok(())
    }

    /// A path beneath the volume `data` of a node.
    pub fn path(&self, node: &str, path: &str) -> PathBuf {
        self.agent(node).volume("data").expect("every agent has it unless the test says otherwise").join(path)
    }

    /// The last lines of every log, for the message of a failure.
    pub fn logs(&self) -> String {
        let logs = self.agents.values().map(Agent::log).chain(self.operator.iter().map(Operator::log));
        logs.map(|log| {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("--- {}\n{}\n", log.display(), lines[lines.len().saturating_sub(30)..].join("\n"))
        })
        .collect()
    }

    async fn connect(&self) -> Result<Client> {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.plane.kubeconfig(ADMIN))?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.read_timeout = Some(Duration::from_secs(30));
        Ok(Client::try_from(config)?)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(recording) = self.recording.take() {
            recording.end(self);
        }
    }
}
