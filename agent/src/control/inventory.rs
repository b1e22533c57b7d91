//! The TransferNode of this node: created once, its status written when something in it has changed. What shall stand in it
//! is computed in `facts`, apart from the writing.

mod facts;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use nixl_transfer_crds::{
    TransferNode, TransferNodeSpec,
    condition::READY,
    names::AGENT_MANAGER,
    node::{TransferNodeStatus, VolumeStatus},
};
use serde_json::json;
use tokio::{sync::watch, time::MissedTickBehavior};
use tracing::{info, warn};

pub use facts::Facts;

use super::{fence::Fence, workers::NixlFacts};
use crate::{config::Config, metrics::Metrics, region::Budget, volume::Volume};

/// Free space is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(30);
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
    pub memory: Budget,
    /// Whether the agent may commit.
    pub fence: Fence,
    /// Counters.
    pub metrics: Metrics,
}

impl Inventory {
    /// Keeps the TransferNode true until `stop`; then says that the agent ends, if the API server takes it.
    pub async fn keep(mut self, mut stop: watch::Receiver<bool>) {
        let mut fenced = self.fence.changes();
        let mut memory = self.memory.changes();
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written: Option<TransferNodeStatus> = None;
        let mut failed = false;
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = tokio::time::sleep(RETRY_AFTER), if failed => {}
                Ok(()) = self.nixl.changed() => {}
                Ok(()) = fenced.changed() => {}
                Ok(()) = memory.changed() => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            failed = !self.refresh(&mut written, false).await;
        }
        self.refresh(&mut written, true).await;
    }

    /// Writes the status if it differs from what was written. False when a write failed.
    async fn refresh(&mut self, written: &mut Option<TransferNodeStatus>, ending: bool) -> bool {
        let nixl = self.nixl.borrow_and_update().clone();
        let facts = Facts {
            config: &self.config,
            instance: &self.instance,
            volumes: self.volumes(),
            missing: &self.missing,
            nixl: nixl.as_ref(),
            memory: &self.memory,
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
        for key in ["nixlVersion", "backends", "volumes", "memlock"] {
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

    fn volumes(&self) -> Vec<VolumeStatus> {
        let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut statuses = Vec::new();
        for volume in self.volumes.values() {
            match volume.space() {
                Ok(space) => statuses.push(VolumeStatus {
                    name: volume.name.clone(),
                    read_only: volume.read_only,
                    capacity: size(space.capacity),
                    free: size(space.free),
                    allowed_namespaces: volume.allowed_namespaces.clone(),
                }),
                Err(error) => warn!(volume = volume.name, %error, "free space cannot be read"),
            }
        }
        statuses
    }
}
