//! `labelNodes`: which nodes get the job's label, and which lose it. The labels on the nodes are the record of it, so that an
//! operator that starts anew finds those that nobody wants any more. Pure.

use std::collections::BTreeMap;

use kube::api::ObjectMeta;
use nixl_transfer_crds::{Reason, job::TransferJobStatus, names};

use super::{
    Action, Input,
    hop::{self, State},
    nodes::{Block, Wanted},
};
use crate::cluster::Cluster;

/// A label that a node gets or loses. The node's UID guards against another one of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Name of the node.
    pub node: String,
    /// Its UID.
    pub uid: String,
    /// Key of the label.
    pub key: String,
    /// Whether the node gets it.
    pub holds: bool,
}

/// Key of the label of a job's nodes.
pub fn key(job: &ObjectMeta) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    names::node_label(&part(&job.namespace), &part(&job.name))
}

/// Refuses a job that asks for labels where the operator may write none.
pub fn check(input: &Input<'_>) -> Result<(), Block> {
    if input.label_nodes || !input.job.spec.label_nodes {
        return Ok(());
    }
    let message = "spec.labelNodes: this operator labels no nodes: remove the field, or ask the administrator to allow it \
                   (`--label-nodes`, in the chart `operator.labelNodes`)";
    Err(Block { reason: Reason::InvalidSpec, message: message.into() })
}

/// The label that the status names.
pub fn named(input: &Input<'_>) -> Option<String> {
    (input.label_nodes && input.job.spec.label_nodes).then(|| key(&input.job.metadata))
}

/// Labels the nodes on which every hop has brought its data, and no others. `states` are absent after the end of the run:
/// then the tasks tell.
pub fn keep(
    input: &Input<'_>,
    status: &TransferJobStatus,
    hops: &[Wanted<'_>],
    states: Option<&[State]>,
    actions: &mut Vec<Action>,
) {
    let Some(key) = named(input) else { return };
    let mut holding: BTreeMap<&str, bool> = BTreeMap::new();
    for (index, hop) in hops.iter().enumerate() {
        let holds = match states {
            Some(states) => states.get(index).is_some_and(State::is_served),
            None => hop::holds(hop, input, status),
        };
        *holding.entry(&hop.node).or_insert(true) &= holds;
    }
    for (node, view) in &input.cluster.nodes {
        let Some(uid) = view.uid.clone() else { continue };
        // A hop may be about a node of that name that is gone.
        let of_this = hops.iter().all(|hop| hop.node != *node || hop.uid.as_ref() == Some(&uid));
        let holds = of_this && holding.get(node.as_str()).copied().unwrap_or(false);
        let value = view.labels.get(&key).map(String::as_str);
        if (holds && value != Some(names::NODE_LABEL_VALUE)) || (!holds && value.is_some()) {
            actions.push(Action::Label(Label { node: node.clone(), uid, key: key.clone(), holds }));
        }
    }
}

/// Takes a label off every node: no job wants it.
pub fn unwanted(key: &str, cluster: &Cluster, actions: &mut Vec<Action>) {
    let labelled = cluster.nodes.iter().filter(|(_, view)| view.labels.contains_key(key));
    actions.extend(labelled.filter_map(|(node, view)| {
        let label = Label { node: node.clone(), uid: view.uid.clone()?, key: key.into(), holds: false };
        Some(Action::Label(label))
    }));
}
