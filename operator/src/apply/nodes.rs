//! Labels nodes, and takes labels off. I/O.

use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::Patch};
use nixl_transfer_crds::names::NODE_LABEL_VALUE;
use serde_json::json;

use super::{is_missing, manager, writer::Writer};
use crate::{plan::labels::Label, world::Change};

/// Sets or removes one label; None when the node is gone, and the label with it.
pub async fn label(label: &Label, writer: &Writer) -> Result<Option<Change<Node>>, kube::Error> {
    let nodes: Api<Node> = Api::all(writer.client());
    let value = label.holds.then_some(NODE_LABEL_VALUE);
    let metadata = json!({"uid": label.uid, "labels": {label.key.as_str(): value}});
    let patch = Patch::Merge(json!({"metadata": metadata}));
    match writer.write("Node", "patch", nodes.patch(&label.node, &manager(), &patch)).await {
        Ok(node) => Ok(Some(Change::Put(node))),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
