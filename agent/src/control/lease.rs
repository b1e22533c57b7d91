//! Keeps the node's Lease: renews it, notices when another agent has taken it, lets it go at the end. What follows from a
//! renewal is the `fence`'s; the times in the Lease are for people.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use nixl_transfer_crds::names::{AGENT_MANAGER, LEASE_GONE_SECONDS, LEASE_RENEW_SECONDS};
use serde_json::json;
use tokio::{sync::watch, time::MissedTickBehavior};
use tracing::{error, info, warn};

use super::fence::{Fence, Moment};
use crate::metrics::Metrics;

const RENEW_EVERY: Duration = Duration::from_secs(LEASE_RENEW_SECONDS as u64);
/// After a failure the next try comes sooner.
const RETRY_EVERY: Duration = Duration::from_secs(2);
/// A request that takes longer is given up.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// Who holds the Lease.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Leases of the namespace where agents keep theirs.
    pub leases: Api<Lease>,
    /// Name of the Lease.
    pub node: String,
    /// UUID of this start of the agent.
    pub instance: String,
}

/// What became of a renewal.
#[derive(Debug, PartialEq, Eq)]
enum Renewal {
    Done,
    /// Someone else holds it now.
    TakenBy(String),
}

impl Holder {
    /// Renews until another agent has taken the Lease, or `stop` is true; then lets go of the Lease so that the operator need not wait for it to lapse.
    pub async fn keep(self, fence: Fence, metrics: Metrics, mut stop: watch::Receiver<bool>) {
        let mut tick = tokio::time::interval(RETRY_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = Instant::now();
        let mut version = None;
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = tokio::time::sleep(fence.left()), if fence.may_commit() => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            let (begun, moment) = (Instant::now(), Moment::now());
            // An agent that stood still for long is fenced before it renews, or its hops would never hear that others
            // had reason to take it as gone.
            fence.update(moment);
            if begun >= due {
                match tokio::time::timeout(ANSWERED_WITHIN, self.renew(&mut version)).await {
                    Ok(Ok(Renewal::Done)) => {
                        due = begun + RENEW_EVERY;
                        metrics.api_write("Lease", "patch");
                        fence.renewed(moment);
                    }
                    Ok(Ok(Renewal::TakenBy(other))) => {
                        error!(
                            holder = other,
                            "another agent holds this node's Lease; this one commits nothing more and ends"
                        );
                        fence.lost();
                        // The end of this task ends the agent: whoever starts it again decides which one stays.
                        return;
                    }
                    Ok(Err(error)) => warn!(%error, "the Lease could not be renewed"),
                    Err(_) => warn!("the API server did not answer the renewal of the Lease in time"),
                }
            }
            fence.update(Moment::now());
            metrics.fenced(!fence.may_commit());
        }
        if fence.may_commit() {
            self.release(version).await;
        }
    }

    /// The first renewal takes the Lease from whoever holds it, which is the instance before us; should that one still
    /// live, its next renewal is refused and it is fenced. Later renewals only renew what is still ours.
    async fn renew(&self, version: &mut Option<String>) -> Result<Renewal, kube::Error> {
        let now = MicroTime(jiff::Timestamp::now());
        let mut spec = json!({
            "holderIdentity": self.instance,
            "leaseDurationSeconds": LEASE_GONE_SECONDS,
            "renewTime": now,
        });
        let mut metadata = json!({});
        match version.as_ref() {
            // With the version we last saw, someone else's write in between is a conflict.
            Some(version) => metadata["resourceVersion"] = json!(version),
            None => spec["acquireTime"] = json!(now),
        }
        let patch = json!({"metadata": metadata, "spec": spec});
        let parameters = PatchParams { field_manager: Some(AGENT_MANAGER.into()), ..PatchParams::default() };
        let patched = self.leases.patch(&self.node, &parameters, &Patch::Merge(&patch)).await;
        let lease = match patched {
            Ok(lease) => lease,
            Err(kube::Error::Api(status)) if status.code == 404 => self.create(now).await?,
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let found = self.leases.get(&self.node).await?;
                let holder =
                    found.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
                if !holder.is_empty() && holder != self.instance {
                    return Ok(Renewal::TakenBy(holder));
                }
                // Someone edited a label or cleared the holder, or our own write came through although its answer was
                // lost.
                *version = found.metadata.resource_version;
                return Box::pin(self.renew(version)).await;
            }
            Err(error) => return Err(error),
        };
        if version.is_none() {
            info!(lease = self.node, "the Lease is ours");
        }
        *version = lease.metadata.resource_version;
        Ok(Renewal::Done)
    }

    async fn create(&self, now: MicroTime) -> Result<Lease, kube::Error> {
        let lease = Lease {
            metadata: ObjectMeta { name: Some(self.node.clone()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.instance.clone()),
                lease_duration_seconds: i32::try_from(LEASE_GONE_SECONDS).ok(),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        };
        self.leases
            .create(
                &PostParams { field_manager: Some(AGENT_MANAGER.into()), ..PostParams::default() },
                &lease,
            )
            .await
    }

    async fn release(&self, version: Option<String>) {
        let Some(version) = version else { return };
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": null}});
        let parameters = PatchParams { field_manager: Some(AGENT_MANAGER.into()), ..PatchParams::default() };
        let patch = Patch::Merge(&patch);
        let released = self.leases.patch(&self.node, &parameters, &patch);
        match tokio::time::timeout(ANSWERED_WITHIN, released).await {
            Ok(Ok(_)) => info!("the Lease is let go"),
            Ok(Err(error)) => warn!(%error, "the Lease could not be let go; it lapses"),
            Err(_) => warn!("the API server did not answer; the Lease lapses"),
        }
    }
}
