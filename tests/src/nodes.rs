//! Node objects in tests: their labels, and the operator's right to set some.

use std::time::Duration;

use anyhow::{Context, Result};
use devcluster::OPERATOR_GROUP;
use k8s_openapi::api::core::v1::Node;
use kube::Api;

use crate::cluster::Cluster;

impl Cluster {
    /// The core Nodes.
    pub fn nodes(&self) -> Api<Node> {
        Api::all(self.client())
    }

    /// Gives the node another role than it was made with.
    pub fn set_role(&self, node: &str, role: &str) -> Result<()> {
        let label = format!("role={role}");
        self.plane.kubectl(&["label", "node", node, &label, "--overwrite"]).map(drop)
    }

    /// Gives the operator the right to label nodes, as `operator.labelNodes` of the chart does.
    pub fn may_label(&self) -> Result<()> {
        let (role, group) =
            ("--clusterrole=nixl-transfer-operator-labels", format!("--group={OPERATOR_GROUP}"));
        self.plane.kubectl(&["create", "clusterrolebinding", "operator-labels", role, &group]).map(drop)
    }

    /// Waits until the node has the label with this value, or has it no more.
    pub async fn wait_label(
        &self,
        node: &str,
        key: &str,
        value: Option<&str>,
        within: Duration,
    ) -> Result<()> {
        let has = |node: Option<&Node>| {
            let labels = node.and_then(|node| node.metadata.labels.as_ref());
            labels.and_then(|labels| labels.get(key)).map(String::as_str) == value
        };
        let waited = kube::runtime::wait::await_condition(self.nodes(), node, has);
        let waited = tokio::time::timeout(within, waited).await;
        waited.with_context(|| format!("{node}: {key} is not {value:?}:\n{}", self.logs()))??;
        Ok(())
    }
}
