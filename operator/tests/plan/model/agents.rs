//! What the agents of the model do: report, end what they are asked to end, move bytes, and send on in a chain.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nixl_transfer_crds::{
    TransferTask,
    task::{
        SideState, TransferTaskStatus,
        status::{SourceSide, TargetSide, TransportUsed},
    },
};
use serde_json::json;
use transfer_operator::cluster::Liveness;

use super::{Behaviour, World, halves, sides};

/// What a hop of a chain means for the one beside it on the same node.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Chained {
    Free,
    Waits,
    Broken,
}

impl World {
    /// One agent writes one side of one task: `state`, and why it failed.
    pub fn report(&mut self, name: &str, target: bool, state: SideState, reason: Option<&str>) {
        let now = Some(Time(self.now));
        let Some(task) = self.tasks.get_mut(name) else { return };
        let status = task.status.get_or_insert_with(TransferTaskStatus::default);
        let (reason, message) = (reason.map(str::to_string), reason.map(|_| "as told".to_string()));
        let side = json!({"state": state, "reason": reason, "message": message, "lastTransitionTime": now});
        if target {
            let mut half: TargetSide = serde_json::from_value(side).unwrap();
            let before = status.target.as_ref();
            half.bytes_total = Some(100);
            half.transport = (state >= SideState::Active).then(|| TransportUsed {
                backend: "UCX".into(),
                network: "tcp".into(),
                devices: Vec::new(),
                direction: None,
                staged: Vec::new(),
                fan_out: None,
                fallback_reason: None,
            });
            half.bytes_done = match state {
                SideState::Succeeded => Some(100),
                SideState::Active => Some(before.and_then(|half| half.bytes_done).unwrap_or(0) + 1),
                _ => before.and_then(|half| half.bytes_done),
            };
            status.target = Some(half);
        } else {
            status.source = Some(serde_json::from_value::<SourceSide>(side).unwrap());
        }
    }

    /// What every living agent does by itself: ends what it is asked to end and what another instance began; then, if
    /// `moving`, one step of work. Returns whether anything was written.
    pub fn agents(&mut self, moving: bool) -> bool {
        let mut written = false;
        for name in self.tasks.keys().cloned().collect::<Vec<_>>() {
            for (target, (node, open)) in [false, true].into_iter().zip(halves(&self.tasks[&name])) {
                let task = &self.tasks[&name];
                let view = self.cluster.nodes.get(&node);
                let Some(agent) =
                    view.filter(|view| view.lease == Liveness::Fresh).and_then(|view| view.agent.as_ref())
                else {
                    continue;
                };
                if !open || self.dead.contains_key(&node) {
                    continue;
                }
                let began = if target { &task.spec.target.instance } else { &task.spec.source.instance };
                let asked = task.spec.cancel || task.metadata.deletion_timestamp.is_some();
                let (own, other) = sides(task, target);
                let chained = if target { self.behind(task) } else { self.ahead(task) };
                let peer = if target { &task.spec.source.node_name } else { &task.spec.target.node_name };
                let peer_died = self.dead.contains_key(peer) && own >= Some(SideState::Active);
                let step = if asked {
                    Some((SideState::Cancelled, Some("Cancelled")))
                } else if *began != agent.instance {
                    Some((SideState::Failed, Some("AgentRestarted")))
                } else if !moving {
                    None
                } else {
                    match (&self.behaviour[&node], own) {
                        // With the worker that received ends what it sent on.
                        (_, _) if !target && chained == Chained::Broken => {
                            Some((SideState::Failed, Some("WorkerLost")))
                        }
                        (Behaviour::Fails(reason), _) if target => Some((SideState::Failed, Some(*reason))),
                        (_, None) => Some((SideState::Prepared, None)),
                        (Behaviour::Works, _) if peer_died => Some((SideState::Failed, Some("PeerLost"))),
                        (Behaviour::Works, _)
                            if other == Some(SideState::Failed) || other == Some(SideState::Cancelled) =>
                        {
                            Some((SideState::Failed, Some("PeerLost")))
                        }
                        // A relay sends nothing on before it receives.
                        (Behaviour::Works, Some(SideState::Prepared))
                            if other >= Some(SideState::Prepared)
                                && (target || chained != Chained::Waits) =>
                        {
                            Some((SideState::Active, None))
                        }
                        (Behaviour::Works, Some(SideState::Active))
                            if target
                                && matches!(other, Some(SideState::Active | SideState::Succeeded))
                                && chained != Chained::Waits =>
                        {
                            Some((SideState::Succeeded, None))
                        }
                        (Behaviour::Works, Some(SideState::Active))
                            if !target && other == Some(SideState::Succeeded) =>
                        {
                            Some((SideState::Succeeded, None))
                        }
                        _ => None,
                    }
                };
                if let Some((state, reason)) = step {
                    self.log.push(format!(
                        "{} {name} {} {state:?} {reason:?}",
                        self.now,
                        if target { "target" } else { "source" }
                    ));
                    self.report(&name, target, state, reason);
                    written = true;
                }
            }
        }
        written
    }

    /// What the agent of a node that sends on knows of what it receives.
    fn ahead(&self, task: &TransferTask) -> Chained {
        let Some(relay) = &task.spec.source.relay else { return Chained::Free };
        match self.tasks.get(&relay.task_name) {
            Some(before) if before.spec.target.forward_to == task.metadata.name => {
                match sides(before, true).0 {
                    Some(SideState::Active | SideState::Succeeded) => Chained::Free,
                    Some(SideState::Failed | SideState::Cancelled) => Chained::Broken,
                    _ => Chained::Waits,
                }
            }
            _ => Chained::Broken,
        }
    }

    /// What the agent of a node that receives knows of what it sends on: it goes on until that has ended somehow.
    fn behind(&self, task: &TransferTask) -> Chained {
        let next = task.spec.target.forward_to.as_ref().and_then(|name| self.tasks.get(name));
        let Some(next) = next else { return Chained::Free };
        let names_us = next.spec.source.relay.as_ref().map(|relay| &relay.task_name);
        let ended = halves(next).iter().any(|(_, open)| !open);
        if names_us != task.metadata.name.as_ref() || ended { Chained::Free } else { Chained::Waits }
    }
}
