//! Memory regions in tests: made as a user would write them, waited for with a deadline.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::{Api, api::DeleteParams};
use nixl_transfer_crds::{MemoryRegion, condition};
use serde_json::{Value, json};

use crate::cluster::{Cluster, NAMESPACE};

/// A region that the agent of a node holds in host memory.
pub fn held_by_agent(name: &str, node: &str, bytes: u64) -> Value {
    region(name, node, json!({"agent": {"size": bytes.to_string()}}))
}

/// A region of any kind.
pub fn region(name: &str, node: &str, held: Value) -> Value {
    let mut region = json!({
        "apiVersion": "nixl-transfer.io/v1alpha1",
        "kind": "MemoryRegion",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": held,
    });
    region["spec"]["node"] = json!({"name": node});
    region
}

/// A job from one end to others; an end is what stands in `source` or in an entry of `destinations`, which get names.
pub fn job(name: &str, source: Value, destinations: &[Value]) -> Value {
    let named = destinations.iter().enumerate().map(|(at, to)| {
        let mut to = to.clone();
        to["name"] = json!(format!("d{at}"));
        to
    });
    json!({
        "apiVersion": "nixl-transfer.io/v1alpha1",
        "kind": "TransferJob",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"source": source, "destinations": named.collect::<Vec<_>>()},
    })
}

/// An end in memory.
pub fn memory(name: &str) -> Value {
    json!({"memory": {"name": name}})
}

/// An end beneath the volume `data` of a node.
pub fn file(node: &str, path: &str) -> Value {
    json!({"node": {"name": node}, "volume": {"name": "data", "path": path}})
}

impl Cluster {
    /// MemoryRegions in the tests' namespace.
    pub fn regions(&self) -> Api<MemoryRegion> {
        Api::namespaced(self.client(), NAMESPACE)
    }

    /// Waits until the region fulfils `until`; on the deadline the error tells its state.
    pub async fn wait_region(
        &self,
        name: &str,
        within: Duration,
        what: &str,
        until: impl Fn(&MemoryRegion) -> bool + Send,
    ) -> Result<MemoryRegion> {
        let waited =
            kube::runtime::wait::await_condition(self.regions(), name, |region: Option<&MemoryRegion>| {
                region.is_some_and(&until)
            });
        match tokio::time::timeout(within, waited).await {
            Ok(region) => region?.with_context(|| format!("region {name} is gone")),
            Err(_) => {
                let mut region = self.regions().get_opt(name).await?;
                if let Some(status) = region.as_mut().and_then(|region| region.status.as_mut()) {
                    status.rdma_metadata = status.rdma_metadata.take().map(|_| "<present>".into());
                }
                bail!("region {name} is not {what} after {within:?}: {region:#?}\n{}", self.logs())
            }
        }
    }

    /// Waits until the region of the current generation is Ready.
    pub async fn wait_region_ready(&self, name: &str, within: Duration) -> Result<MemoryRegion> {
        self.wait_region(name, within, "Ready", |region| {
            is_current(region)
                && region
                    .status
                    .as_ref()
                    .is_some_and(|it| condition::is_true(&it.conditions, condition::READY))
        })
        .await
    }

    /// Waits until the region's agent says with this reason that it is not Ready; gives the message.
    pub async fn wait_region_unready(&self, name: &str, reason: &str, within: Duration) -> Result<String> {
        let region = self
            .wait_region(name, within, reason, |region| {
                is_current(region)
                    && ready_of(region).is_some_and(|(truth, said, _)| truth == "False" && said == reason)
            })
            .await?;
        Ok(ready_of(&region).context("a condition")?.2)
    }

    /// Deletes a region, as a user would.
    pub async fn delete_region(&self, name: &str) -> Result<()> {
        self.regions().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }
}

fn is_current(region: &MemoryRegion) -> bool {
    let observed = region.status.as_ref().and_then(|status| status.observed_generation);
    observed == region.metadata.generation
}

fn ready_of(region: &MemoryRegion) -> Option<(String, String, String)> {
    let found = condition::find(&region.status.as_ref()?.conditions, condition::READY)?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}
