//! The TransferNode of this node: created once, its status written when something in it has changed. What is on the node is
//! seen in `looks`, what shall stand in the status is computed in `facts`, apart from the writing.

mod call;
mod facts;
mod gpus;
mod looks;
mod volumes;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use nixl_transfer_crds::{
    TransferNode, TransferNodeSpec, condition::READY, names::AGENT_MANAGER, node::TransferNodeStatus,
};
use serde_json::json;
use tokio::{sync::watch, time::MissedTickBehavior};
use tracing::{info, warn};

pub use facts::Facts;
pub use looks::Seen;

use looks::Looks;

use super::{fence::Fence, workers::NixlFacts};
use crate::{config::Config, devices::Hardware, metrics::Metrics, region::Budgets, volume::Volume};

/// Volumes and devices are looked at this often: what changes stands in the status within 30 s, its writing included.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// After a failed write.
const RETRY_AFTER: Duration = Duration::from_secs(2);
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// What the inventory is made of.
#[derive(Debug)]
pub struct Inventory {
    /// Access to TransferNodes.
    pub api: Api<TransferNode>,
    /// The agent's configuration.
    pub config: Arc<Config>,
    /// UUID of this start of the agent.
    pub instance: String,
    /// Opened volumes.
    pub volumes: BTreeMap<String, Arc<Volume>>,
    /// Volumes that could not be opened: why.
    pub missing: Vec<String>,
    /// What workers found out.
    pub nixl: watch::Receiver<Option<NixlFacts>>,
    /// Memory that regions may take.
    pub memory: Budgets,
    /// This agent's key.
    pub public_key: String,
    /// Whether the agent may commit.
    pub fence: Fence,
    /// Counters.
    pub metrics: Metrics,
    /// For those who use the devices.
    pub hardware: watch::Sender<Option<Arc<Hardware>>>,
}

impl Inventory {
    /// Keeps the TransferNode true until `stop`; then says that the agent ends, if the API server takes it.
    pub async fn keep(mut self, mut stop: watch::Receiver<bool>) {
        let opened = self.volumes.values().cloned().collect();
        let libraries = (self.config.sysfs.clone(), self.config.nvidia.nvml.clone());
        let mut looks = Looks::new(libraries, opened, self.metrics.clone(), self.hardware.clone());
        let mut fenced = self.fence.changes();
        let mut memory = self.memory.changes();
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written: Option<TransferNodeStatus> = None;
        let mut failed = false;
        loop {
            let look = tokio::select! {
                // A look comes first, so that the first status has all in it.
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                _ = tick.tick() => true,
                () = looks.take_late() => false,
                _ = tokio::time::sleep(RETRY_AFTER), if failed => false,
                Ok(()) = self.nixl.changed() => false,
                Ok(()) = fenced.changed() => false,
                Ok(()) = memory.changed() => false,
            };
            if look {
                looks.look().await;
            }
            failed = !self.refresh(&mut written, looks.seen(), false).await;
        }
        self.refresh(&mut written, looks.seen(), true).await;
    }

    /// Writes the status if it differs from what was written. False when a write failed.
    async fn refresh(&mut self, written: &mut Option<TransferNodeStatus>, seen: &Seen, ending: bool) -> bool {
        let nixl = self.nixl.borrow_and_update().clone();
        let facts = Facts {
            config: &self.config,
            instance: &self.instance,
            seen,
            missing: &self.missing,
            nixl: nixl.as_ref(),
            memory: &self.memory,
            public_key: &self.public_key,
            fenced: !self.fence.may_commit(),
            ending,
        };
        let status = match tokio::time::timeout(ANSWERED_WITHIN, self.write(&facts, written.as_ref())).await {
            Ok(Ok(None)) => return true,
            Ok(Ok(Some(status))) => status,
            Ok(Err(error)) => {
                warn!(%error, "the TransferNode could not be written");
                return false;
            }
            Err(_) => {
                warn!("the API server did not answer a write of the TransferNode in time");
                return false;
            }
        };
        if let Some(ready) = nixl_transfer_crds::condition::find(&status.conditions, READY) {
            info!(ready = ready.status, message = ready.message, "TransferNode written");
        }
        *written = Some(status);
        true
    }

    async fn write(
        &self,
        facts: &Facts<'_>,
        written: Option<&TransferNodeStatus>,
    ) -> Result<Option<TransferNodeStatus>, kube::Error> {
        let found;
        let before = match written {
            Some(status) => status,
            // At a start the last instance's status stands there, and its conditions keep their times.
            None => {
                found = self.find_or_create().await?;
                &found
            }
        };
        let status = facts.status(before, jiff::Timestamp::now());
        if written.is_some_and(|written| *written == status) {
            return Ok(None);
        }
        let mut document = json!(status);
        // A merge patch keeps what it does not name; what we have not got must not stay from an earlier instance.
        for key in ["nixlVersion", "backends", "volumes", "gpus", "nics", "gpuDirect", "memlock"] {
            if document.get(key).is_none() {
                document[key] = serde_json::Value::Null;
            }
        }
        let patch = Patch::Merge(json!({"status": document}));
        let parameters = PatchParams { field_manager: Some(AGENT_MANAGER.into()), ..PatchParams::default() };
        match self.api.patch_status(&self.config.node_name, &parameters, &patch).await {
            Ok(_) => {}
            Err(kube::Error::Api(answer)) if answer.code == 404 => {
                self.find_or_create().await?;
                self.api.patch_status(&self.config.node_name, &parameters, &patch).await?;
            }
            Err(error) => return Err(error),
        }
        self.metrics.api_write("TransferNode", "patch");
        Ok(Some(status))
    }

    async fn find_or_create(&self) -> Result<TransferNodeStatus, kube::Error> {
        let node = TransferNode {
            metadata: ObjectMeta { name: Some(self.config.node_name.clone()), ..ObjectMeta::default() },
            spec: TransferNodeSpec::default(),
            status: None,
        };
        let parameters = PostParams { field_manager: Some(AGENT_MANAGER.into()), ..PostParams::default() };
        let found = match self.api.create(&parameters, &node).await {
            Err(kube::Error::Api(answer)) if answer.code == 409 => {
                self.api.get(&self.config.node_name).await?
            }
            other => other?,
        };
        Ok(found.status.unwrap_or_default())
    }
}
