//! A real control plane, our operator and our agents as child processes of the caller: for the demo and for tests.
//! Nothing here is pretended: etcd and kube-apiserver are the real programs, every agent is a process with its own
//! directories, and what the owner of a cluster starts does not outlive it.
//!
//! A cluster has one [`ClusterDir`] (owned by a lock), one [`ControlPlane`], and any number of [`Operator`] and
//! [`Agent`] handles. Dropping a handle kills its process; dropping the directory removes it.

mod agent;
mod cluster_dir;
mod control_plane;
mod http;
mod identity;
mod kept;
mod kubectl;
mod operator;
mod ports;
mod process;
mod process_table;
mod prometheus;
mod record;
mod rights;
mod spawn;
mod tool_paths;

pub use agent::{Agent, AgentOptions, Volume};
pub use cluster_dir::ClusterDir;
pub use control_plane::{ControlPlane, ControlPlaneOptions, EtcdSync, Manifests};
pub use http::http_get;
pub use identity::{ADMIN, AGENT_GROUP, OPERATOR, OPERATOR_GROUP, SECOND_OPERATOR, agent_user};
pub use kept::KeptCluster;
pub use kubectl::Kubectl;
pub use operator::{Operator, OperatorOptions};
pub use ports::free_port;
pub use process::{Launch, Process};
pub use process_table::{ProcessInfo, descendants, look_up as process};
pub use prometheus::{Prometheus, Target};
pub use record::{Record, SUITE_RECORD};
pub use rights::{Asked, Right, Told, asked, granted, service_account};
pub use spawn::Tie;
pub use tool_paths::{Assets, NixlPaths, binary, tool};

/// The namespace of operator, agents and Leases.
pub const SYSTEM_NAMESPACE: &str = "nixl-transfer-system";
