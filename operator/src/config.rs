//! The command line. Nothing else reads the environment.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use nixl_transfer_crds::names::SYSTEM_NAMESPACE;

/// The operator of nixl-transfer: plans TransferJobs, makes one TransferTask per hop, and reports what became of them.
#[derive(Debug, Parser)]
#[command(name = "transfer-operator", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the cluster and carry out TransferJobs until SIGTERM or SIGINT.
    ///
    /// The operator keeps nothing but what the API server holds; it may be killed and started again at any time.
    /// It serves /metrics, /readyz (fails when no watch has been alive for a minute) and /healthz (fails when a watch
    /// is dead for 5 minutes while the API server answers) on the address given by --listen. One that stands by is ready.
    Run(Config),
    /// Stop the operators and remove every TransferTask, for an uninstall. TransferJobs stay.
    ///
    /// The agents must still run: they end what they do. May be run again.
    Clear(Clear),
}

/// How tasks are cleared.
#[derive(Clone, Debug, Args)]
pub struct Clear {
    /// Kubeconfig file; without it the pod's service account, or else $KUBECONFIG and ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the operator.
    #[arg(long, default_value = SYSTEM_NAMESPACE)]
    pub namespace: String,
    /// The operator's Deployment, which is scaled to nothing; none of that name is none that runs.
    #[arg(long, value_name = "NAME")]
    pub deployment: String,
    /// How long the pods may take to begin their end, and then the agents to end the tasks; after that the tasks' finalizers are
    /// removed.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "SECONDS")]
    pub timeout_seconds: u64,
    /// Name in the Lease; a UUID of this start is added. Without it, the host's name.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: Option<String>,
}

/// How the operator runs.
#[derive(Clone, Debug, Args)]
pub struct Config {
    /// Kubeconfig file; without it the pod's service account, or else $KUBECONFIG and ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the agents' Leases, each named as its node, and of the operator's own.
    #[arg(long, default_value = SYSTEM_NAMESPACE)]
    pub namespace: String,
    /// Address of /metrics, /healthz and /readyz; port 0 takes a free one and logs it.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Requests to the API server under way at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub writers: u16,
    /// Pause before the first retry of a hop; it doubles up to 6 min.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i64).range(0..=360), value_name = "SECONDS")]
    pub backoff_base_seconds: i64,
    /// Label of a Node that names its rack. Chains go through a zone (topology.kubernetes.io/zone) rack by rack.
    #[arg(long, default_value = "topology.kubernetes.io/rack", value_name = "LABEL")]
    pub rack_label: String,
    /// Carry out `spec.labelNodes` of jobs: label the nodes that hold their data. Needs the right to patch nodes. Without it such
    /// jobs fail, and labels that are there stay.
    #[arg(long)]
    pub label_nodes: bool,
    /// Several operators may run; the one that holds the Lease nixl-transfer-operator writes, the others stand by.
    #[arg(long)]
    pub leader_elect: bool,
    /// Name of this operator in the Lease; a UUID of this start is added. Without it, the host's name.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: Option<String>,
    /// For tests: how long a Lease lasts that is not renewed; the other times of the election are fractions of it.
    #[arg(long, hide = true, default_value_t = 15, value_parser = clap::value_parser!(u64).range(3..=60), value_name = "SECONDS")]
    pub leader_lease_seconds: u64,
    /// For tests of the fence: one that has lost the Lease goes on for so long before it ends.
    #[arg(long, hide = true, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60), value_name = "SECONDS")]
    pub linger_when_lost_seconds: u64,
    /// For tests of crashes: the process kills itself right after so many successful API writes, events not counted.
    #[arg(long, hide = true, value_name = "N")]
    pub exit_after_writes: Option<u64>,
}
