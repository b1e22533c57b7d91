//! The watches: five kinds, one channel. I/O only; what it means is decided in `world` and `plan`.

pub mod watch;

use std::sync::Arc;

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::{Api, Client};
use nixl_transfer_crds::{TransferJob, TransferNode, TransferTask};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    control::Message,
    serve::{Health, Watched},
    world::Observation,
};

/// Starts the watches in `tasks`. They go on until they are aborted or the channel is closed.
pub fn start(
    tasks: &mut JoinSet<()>,
    client: &Client,
    namespace: &str,
    messages: &mpsc::Sender<Message>,
    health: &Arc<Health>,
) {
    let jobs: Api<TransferJob> = Api::all(client.clone());
    let hops: Api<TransferTask> = Api::all(client.clone());
    let agents: Api<TransferNode> = Api::all(client.clone());
    let nodes: Api<Node> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let sink = |watched| watch::Sink { messages: messages.clone(), health: health.clone(), watched };
    tasks.spawn(watch::follow(jobs, Observation::Job, sink(Watched::Jobs)));
    tasks.spawn(watch::follow(hops, Observation::Task, sink(Watched::Tasks)));
    tasks.spawn(watch::follow(agents, Observation::Agent, sink(Watched::Agents)));
    tasks.spawn(watch::follow(nodes, Observation::Node, sink(Watched::Nodes)));
    tasks.spawn(watch::follow(leases, Observation::Lease, sink(Watched::Leases)));
}
