//! The MemoryRegions of this node: allocates what the agent shall hold, frees what nobody wants any more, and writes the
//! status of each when something in it has changed. What a status says is computed in `facts`.

mod facts;
mod handed;
mod known;

use std::{collections::HashMap, time::Duration};

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use nixl_transfer_crds::{MemoryRegion, names::AGENT_MANAGER, region::MemoryRegionStatus};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::Instant,
};
use tracing::{info, warn};

use self::{
    handed::Handed,
    known::{Allocated, Known},
};
use super::gpus::Gpus;
use crate::{
    metrics::Metrics,
    region::{Budgets, RegionKey, Regions},
    workload::Request,
};

/// After a failed write.
const RETRY_AFTER: Duration = Duration::from_secs(5);
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// How long the last words may take, all together.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Changes that may wait; the watch waits when the loop does not keep up.
const CHANGES: usize = 64;

/// What is needed to keep the regions.
pub struct RegionKeeper {
    /// Access to the API server.
    pub client: kube::Client,
    /// Name of this node.
    pub node: String,
    /// UUID of this start of the agent.
    pub instance: String,
    /// What is held.
    pub regions: Regions,
    /// How much may be.
    pub budgets: Budgets,
    /// For memory of GPUs.
    pub gpus: Gpus,
    /// Counters.
    pub metrics: Metrics,
}

/// An offer of a workload has served: to be written down before the workload is told, so that nobody uses it twice.
#[derive(Debug)]
pub struct Consumed {
    /// The region.
    pub key: RegionKey,
    /// Its UID.
    pub uid: String,
    /// Which offer.
    pub offer: String,
    /// Whether it stands in the status.
    pub answer: oneshot::Sender<bool>,
}

struct Sink(mpsc::Sender<follow::Change<MemoryRegion>>);

impl follow::Sink<MemoryRegion> for Sink {
    fn alive(&mut self) {}

    fn lighten(&self, region: &mut MemoryRegion) {
        region.metadata.managed_fields = None;
    }

    async fn take(&mut self, change: follow::Change<MemoryRegion>) -> bool {
        self.0.send(change).await.is_ok()
    }
}

impl RegionKeeper {
    /// Keeps the regions, those of workloads too, who come to the desk, until `stop`; then says that their memory is gone, if
    /// the API server takes it.
    pub async fn keep(
        self,
        mut desk: mpsc::Receiver<Request>,
        mut consumed: mpsc::Receiver<Consumed>,
        mut stop: watch::Receiver<bool>,
    ) {
        let (tell, mut changes) = mpsc::channel(CHANGES);
        let mut watching = JoinSet::new();
        let (api, fields) = (Api::all(self.client.clone()), format!("spec.node.name={}", self.node));
        watching.spawn(async move {
            follow::follow(api, &fields, "memory regions of this node", Sink(tell)).await
        });
        let (mut used, mut room) = (self.regions.changes(), self.budgets.changes());
        let mut hardware = self.gpus.changes();
        let mut known: HashMap<RegionKey, Known> = HashMap::new();
        let mut handed = Handed::default();
        let mut allocations: JoinSet<Allocated> = JoinSet::new();
        let mut failed = false;
        let mut again: Option<Instant> = None;
        loop {
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => self.take(&mut known, change),
                    None => break,
                },
                Some(done) = allocations.join_next() => match done {
                    Ok(allocated) => known::allocated(&self.regions, &mut known, allocated),
                    // Whose it was is found by the next look.
                    Err(error) => warn!(%error, "an allocation ended badly; it is tried again"),
                },
                Some(consumed) = consumed.recv() => self.consume(&mut known, consumed).await,
                Some(request) = desk.recv() => handed.serve(request, &known, &self.regions),
                Some(connection) = handed.closed() => handed.let_go_of(connection, &self.regions),
                Ok(()) = used.changed() => {}
                Ok(()) = room.changed() => {}
                Ok(()) = hardware.changed() => {}
                () = tokio::time::sleep(RETRY_AFTER), if failed => {}
                () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
                () = async { drop(stop.wait_for(|stop| *stop).await) } => break,
            }
            handed.give_back_unfit(&known, &self.regions);
            failed = false;
            for (key, known) in &mut known {
                known.hold(key, &self.regions, (&self.budgets, &self.gpus), &mut allocations);
                failed |= !self.write(key, known, false).await;
            }
            again = known.values().filter_map(Known::again_at).min();
        }
        known.values().for_each(Known::give_up);
        let last_words = async {
            for (key, known) in &mut known {
                self.write(key, known, true).await;
            }
        };
        if tokio::time::timeout(LAST_WORDS, last_words).await.is_err() {
            warn!("not every region could be said to be gone");
        }
    }

    fn take(&self, known: &mut HashMap<RegionKey, Known>, change: follow::Change<MemoryRegion>) {
        match change {
            follow::Change::Put(object) => Known::see(known, &self.regions, object),
            follow::Change::Gone(gone) => {
                let key = (gone.namespace.unwrap_or_default(), gone.name.unwrap_or_default());
                if known.get(&key).is_some_and(|known| Some(known.uid()) == gone.uid.as_deref()) {
                    Known::forget(known, &self.regions, &key);
                }
            }
            follow::Change::All(objects, _) => {
                let listed: Vec<RegionKey> = objects.iter().map(known::key).collect();
                let gone: Vec<RegionKey> =
                    known.keys().filter(|key| !listed.contains(key)).cloned().collect();
                gone.iter().for_each(|key| Known::forget(known, &self.regions, key));
                objects.into_iter().for_each(|object| Known::see(known, &self.regions, object));
            }
        }
    }

    async fn consume(&self, known: &mut HashMap<RegionKey, Known>, consumed: Consumed) {
        let Consumed { key, uid, offer, answer } = consumed;
        let written = match known.get_mut(&key).filter(|known| known.uid() == uid) {
            Some(known) => {
                known.consume(&offer);
                // Before anybody is told: who waits for the region must not get it when this user leaves.
                self.regions.retire(&key, &uid);
                let written = self.write(&key, known, false).await;
                written && known.object.status.as_ref().is_some_and(|status| status.consumed == Some(offer))
            }
            None => false,
        };
        // Whoever asked may have given up.
        let _ = answer.send(written);
    }

    /// Writes the status if it differs from what stands there. False when that failed.
    async fn write(&self, key: &RegionKey, known: &mut Known, ending: bool) -> bool {
        let shown = self.regions.shown(key);
        let now = jiff::Timestamp::now();
        let status = facts::status(
            &known.object,
            &self.instance,
            shown.as_ref(),
            known.trouble(),
            known.consumed(),
            ending,
            now,
        );
        if known.object.status.as_ref() == Some(&status) {
            return true;
        }
        let (namespace, name) = key;
        let written = tokio::time::timeout(ANSWERED_WITHIN, self.patch(key, known.uid(), &status)).await;
        match written {
            Ok(Ok(())) => {
                info!(namespace, name, ready = facts::is_ready(&status), "MemoryRegion written");
                known.object.status = Some(status);
                self.metrics.api_write("MemoryRegion", "patch");
                true
            }
            // Deleted or made anew meanwhile, which the watch is about to say.
            Ok(Err(kube::Error::Api(answer))) if matches!(answer.code, 404 | 409) => true,
            Ok(Err(error)) => {
                warn!(namespace, name, %error, "the status of a MemoryRegion could not be written");
                false
            }
            Err(_) => {
                warn!(namespace, name, "the API server did not answer a write of a MemoryRegion in time");
                false
            }
        }
    }

    async fn patch(
        &self,
        (namespace, name): &RegionKey,
        uid: &str,
        status: &MemoryRegionStatus,
    ) -> Result<(), kube::Error> {
        let mut document = json!(status);
        // A merge patch keeps what it does not name; what we have not got must not stay from an earlier instance.
        for field in ["size", "device", "instance", "pod", "content", "consumed"] {
            if document.get(field).is_none() {
                document[field] = Value::Null;
            }
        }
        if let Some(fields) = document.as_object_mut() {
            // The workload's, not ours.
            fields.remove("rdmaMetadata");
        }
        let patch = Patch::Merge(json!({"metadata": {"uid": uid}, "status": document}));
        let parameters = PatchParams { field_manager: Some(AGENT_MANAGER.into()), ..PatchParams::default() };
        let api = Api::<MemoryRegion>::namespaced(self.client.clone(), namespace);
        api.patch_status(name, &parameters, &patch).await.map(drop)
    }
}
