//! Writes our half of one task's status: the only writer of it, one write in flight, the latest state wins, retried
//! while the API server is away. Knows nothing of what the states mean.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use nixl_transfer_crds::{
    TransferTask,
    names::AGENT_MANAGER,
    task::{
        Side, SideState,
        status::{SourceSide, TargetSide},
    },
};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tracing::{debug, warn};

/// Our half, as it shall stand in the status.
#[derive(Clone, Debug, PartialEq)]
pub enum Half {
    /// Of the sending side.
    Source(SourceSide),
    /// Of the receiving side; boxed, because it is much larger.
    Target(Box<TargetSide>),
}

impl Half {
    /// The merge patch that makes the status say this. What is absent is removed: a capability must not stay.
    fn patch(&self, uid: &str) -> Value {
        let (name, mut half, capability) = match self {
            Half::Source(half) => ("source", json!(half), "agentMetadata"),
            Half::Target(half) => ("target", json!(half), "rdmaMetadata"),
        };
        for removable in [capability, "reason", "message"] {
            if half.get(removable).is_none() {
                half[removable] = Value::Null;
            }
        }
        // With the UID a task of the same name that was made later is not touched.
        json!({"metadata": {"uid": uid}, "status": {name: half}})
    }

    /// The little that ends the half when the API server refuses the rest, or the task would never be over. What was
    /// written before stays.
    fn bare(&self) -> Option<Self> {
        let message = Some("the full report was refused; look at the agent's log".to_owned());
        let bare = match self {
            Half::Source(half) => Half::Source(SourceSide {
                agent_metadata: None,
                worker: None,
                message: half.reason.as_ref().and(message),
                ..half.clone()
            }),
            Half::Target(half) => Half::Target(Box::new(TargetSide {
                operation: half.operation,
                reason: half.reason.clone(),
                message: half.reason.as_ref().and(message),
                last_transition_time: half.last_transition_time.clone(),
                // Without its digest a success would be no proof.
                digest: half.digest.clone(),
                ..TargetSide::new(half.state)
            })),
        };
        (bare.state().is_terminal() && bare != *self).then_some(bare)
    }

    fn state(&self) -> SideState {
        match self {
            Half::Source(half) => half.state,
            Half::Target(half) => half.state,
        }
    }

    /// Which side it is.
    pub fn side(&self) -> Side {
        match self {
            Half::Source(_) => Side::Source,
            Half::Target(_) => Side::Target,
        }
    }
}

/// The reporter of one half. Dropping it without `finish` abandons what was not written.
#[derive(Debug)]
pub struct Report {
    latest: watch::Sender<Option<Half>>,
    writer: JoinHandle<()>,
}

impl Report {
    /// Starts the writer for a task.
    pub fn start(api: Api<TransferTask>, name: String, uid: String) -> Self {
        let (latest, changes) = watch::channel(None);
        Self { latest, writer: tokio::spawn(write(api, name, uid, changes)) }
    }

    /// Sets what the status shall say. Returns at once.
    pub fn set(&self, half: Half) {
        self.latest.send_replace(Some(half));
    }

    /// Sets the last state and waits until it is written or the task is gone. There is no deadline: a result that
    /// cannot be written yet, because the API server is away, is written later.
    pub async fn finish(self, half: Half) {
        let Self { latest, writer } = self;
        latest.send_replace(Some(half));
        drop(latest);
        if let Err(error) = writer.await {
            warn!(%error, "the writer of a task's status ended badly");
        }
    }
}

async fn write(
    api: Api<TransferTask>,
    name: String,
    uid: String,
    mut changes: watch::Receiver<Option<Half>>,
) {
    while changes.changed().await.is_ok() {
        let mut pauses = pauses();
        let mut refused = None;
        while let Some(half) = refused.take().or_else(|| changes.borrow_and_update().clone()) {
            let patch = Patch::Merge(half.patch(&uid));
            let parameters =
                PatchParams { field_manager: Some(AGENT_MANAGER.into()), ..PatchParams::default() };
            // A write that is given up may still arrive late; it cannot undo a later one, for a state goes only forward.
            let written = timeout(ANSWERED_WITHIN, api.patch_status(&name, &parameters, &patch)).await;
            let Ok(answer) = written else {
                warn!(task = name, "the API server did not answer a report in time; will try again");
                continue;
            };
            match answer {
                Ok(_) => break,
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
                    debug!(task = name, code = status.code, "the task is gone; nothing to report to");
                    return;
                }
                Err(kube::Error::Api(status)) if status.code == 422 => {
                    warn!(task = name, message = status.message, "the API server refuses the report");
                    refused = half.bare();
                    if refused.is_none() {
                        break;
                    }
                }
                Err(error) => {
                    warn!(task = name, %error, "cannot report; will try again");
                    tokio::time::sleep(pauses.next().unwrap_or(MAX_PAUSE)).await; // back-off
                }
            }
        }
    }
}

/// A request on a connection that died silently is given up and sent again.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);
const MAX_PAUSE: Duration = Duration::from_secs(5);

fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(MAX_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_half_takes_its_capability_away() {
        let half = TargetSide::new(SideState::Succeeded);
        let patch = Half::Target(Box::new(half)).patch("uid");
        // Absent would be Null too when indexed, and would take nothing away.
        for removed in ["rdmaMetadata", "reason", "message"] {
            assert_eq!(patch["status"]["target"].get(removed), Some(&Value::Null), "{removed}");
        }
        assert_eq!(patch["status"]["target"]["state"], "Succeeded");
        assert_eq!(patch["metadata"]["uid"], "uid");
    }

    #[test]
    fn a_refused_end_is_told_again_once_with_less() {
        let of = |state, worker: &str| {
            let blank = TargetSide::new(state);
            Half::Target(Box::new(TargetSide { worker: Some(worker.into()), ..blank }))
        };
        let bare = of(SideState::Failed, "w").bare().unwrap();
        assert_eq!(bare.state(), SideState::Failed);
        assert!(bare.patch("uid")["status"]["target"].get("worker").is_none(), "what stands there stays");
        assert_eq!(bare.bare(), None, "there is no less");
        assert_eq!(of(SideState::Active, "w").bare(), None, "the next report may be taken");
    }
}
