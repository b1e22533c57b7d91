//! Takes part in the election: reads the Lease, takes it, renews it, lets it go at the end. What to do is decided in
//! `decide`; whether something may be written is the `fence`'s to say.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use nixl_transfer_crds::names::OPERATOR_MANAGER;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::{
    LEASE, Moment, Timing,
    decide::{Decision, Election, Loss},
    fence::Fence,
};
use crate::metrics::Metrics;

/// A request that takes longer is given up: a renewal has two tries before the fence falls.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

/// One that wants to lead.
pub struct Candidate {
    leases: Api<Lease>,
    identity: String,
    timing: Timing,
    election: Election,
    fence: Fence,
    metrics: Metrics,
}

impl Candidate {
    /// One that holds nothing yet. `leases` are those of the operator's namespace.
    pub fn new(leases: Api<Lease>, identity: String, timing: Timing, fence: Fence, metrics: Metrics) -> Self {
        let election = Election::new(identity.clone(), timing);
        Self { leases, identity, timing, election, fence, metrics }
    }

    /// Waits for the Lease, says so through `acquired`, and renews it until it is lost, which is the error, or until
    /// `stop`: true there lets go of the Lease, so that nobody has to wait until it lapses.
    pub async fn run(
        mut self,
        acquired: oneshot::Sender<()>,
        mut stop: oneshot::Receiver<bool>,
    ) -> Result<(), Loss> {
        let mut acquired = Some(acquired);
        let mut holder = None;
        loop {
            let begun = Moment::now();
            if let Decision::Lost(loss) = self.election.decide(begun) {
                return Err(self.lost(loss));
            }
            self.try_turn(begun).await;
            if self.election.leads() {
                if let Some(acquired) = acquired.take() {
                    info!(identity = self.identity, "this operator leads");
                    self.metrics.leader.set(1);
                    // The receiver is gone only when the operator stops.
                    let _ = acquired.send(());
                }
            } else {
                if holder.as_deref() != Some(self.election.holder()) {
                    holder = Some(self.election.holder().to_string());
                    info!(identity = self.identity, holder, "this operator stands by");
                }
            }
            let next = self.election.next(begun);
            if !self.election.leads() {
                // Another one writes it: what was seen is old when we come back.
                self.election.doubt();
            }
            let pause = Moment::now().until(next);
            let stopped = tokio::select! {
                () = tokio::time::sleep(pause) => continue,
                // An error means that the operator is gone.
                release = &mut stop => release.unwrap_or(false),
            };
            if self.election.leads() {
                self.end(stopped).await;
            }
            return Ok(());
        }
    }

    /// One turn; a failure is told and makes us look again.
    async fn try_turn(&mut self, begun: Moment) {
        let answer = tokio::time::timeout(ANSWERED_WITHIN, self.turn()).await;
        let failure = match answer {
            Ok(Ok(())) => return,
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => None,
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => Some(format!(
                "{}: the operator's Role must allow get, create and patch of Leases",
                status.message
            )),
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", ANSWERED_WITHIN.as_secs())),
        };
        self.election.doubt();
        let seconds = begun.until(Moment::now()).as_secs_f64();
        match failure {
            Some(error) => warn!(lease = LEASE, seconds, error, "a try at the Lease failed; trying again"),
            None => info!(lease = LEASE, "the Lease has changed meanwhile; looking again"),
        }
    }

    async fn turn(&mut self) -> Result<(), kube::Error> {
        if self.election.decide(Moment::now()) == Decision::Look {
            let found = self.leases.get_opt(LEASE).await?;
            self.election.saw(found, Moment::now());
        }
        let begun = Moment::now();
        let now = MicroTime(jiff::Timestamp::now());
        let written = match self.election.decide(begun) {
            Decision::Create => self.create(now).await?,
            Decision::Acquire { version, transitions } => {
                let spec = json!({"acquireTime": now, "leaseTransitions": transitions});
                self.patch(&version, self.ours(spec, &now)).await?
            }
            Decision::Renew { version } => self.patch(&version, self.ours(json!({}), &now)).await?,
            // Found out at the next turn.
            Decision::Look | Decision::Wait(_) | Decision::Lost(_) => return Ok(()),
        };
        self.election.wrote(written, begun);
        self.fence.renewed(begun);
        Ok(())
    }

    /// Adds to the spec that we hold it.
    fn ours(&self, mut spec: Value, now: &MicroTime) -> Value {
        spec["holderIdentity"] = json!(self.identity);
        spec["leaseDurationSeconds"] = json!(self.timing.lease.as_secs());
        spec["renewTime"] = json!(now);
        spec
    }

    async fn create(&self, now: MicroTime) -> Result<Lease, kube::Error> {
        let lease = Lease {
            metadata: ObjectMeta { name: Some(LEASE.into()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(self.timing.lease.as_secs()).ok(),
                lease_transitions: Some(0),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        };
        let manager = Some(OPERATOR_MANAGER.into());
        let parameters = PostParams { field_manager: manager, ..PostParams::default() };
        let created = self.leases.create(&parameters, &lease).await?;
        self.metrics.writes.with_label_values(&["Lease", "create"]).inc();
        Ok(created)
    }

    /// With the version that was decided about, somebody else's write in between is a conflict.
    async fn patch(&self, version: &str, spec: Value) -> Result<Lease, kube::Error> {
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": spec});
        let parameters =
            PatchParams { field_manager: Some(OPERATOR_MANAGER.into()), ..PatchParams::default() };
        let patched = self.leases.patch(LEASE, &parameters, &Patch::Merge(&patch)).await?;
        self.metrics.writes.with_label_values(&["Lease", "patch"]).inc();
        Ok(patched)
    }

    fn lost(&self, loss: Loss) -> Loss {
        self.fence.shut();
        self.metrics.leader.set(0);
        error!(
            identity = self.identity,
            why = %loss,
            "this operator has lost the Lease; it writes nothing more and ends, to stand by when it is started again"
        );
        loss
    }

    /// After our last write.
    async fn end(&mut self, release: bool) {
        let may_release = release && self.fence.may_write();
        self.fence.shut();
        self.metrics.leader.set(0);
        let version = match self.election.decide(Moment::now()) {
            Decision::Renew { version } if may_release => version,
            _ => return info!(identity = self.identity, "this operator leads no more; the Lease lapses"),
        };
        let released = self.patch(&version, json!({"holderIdentity": null}));
        match tokio::time::timeout(ANSWERED_WITHIN, released).await {
            Ok(Ok(_)) => info!(identity = self.identity, "this operator leads no more; the Lease is let go"),
            Ok(Err(error)) => warn!(%error, "the Lease could not be let go; it lapses"),
            Err(_) => warn!("the API server did not answer; the Lease lapses"),
        }
    }
}
