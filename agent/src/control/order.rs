//! What a task asks of this agent, decided from the task alone. Pure.

use nixl_transfer_crds::{
    TransferTask,
    task::{Side, SideState},
};

/// What shall happen with our side of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Our side is over; there is nothing to do.
    Nothing,
    /// Carry it out.
    Run,
    /// End it and report Cancelled.
    Cancel,
    /// It was given to an earlier instance of this agent, whose workers are gone.
    Restarted,
}

/// The order for one side. `instance` is the UUID of this start of the agent.
pub fn order(task: &TransferTask, side: Side, instance: &str) -> Order {
    if state(task, side).is_some_and(SideState::is_terminal) {
        Order::Nothing
    } else if task.spec.cancel || task.metadata.deletion_timestamp.is_some() {
        Order::Cancel
    } else if meant_for(task, side) != instance {
        Order::Restarted
    } else {
        Order::Run
    }
}

/// The instance of the agent that a side was given to.
pub fn meant_for(task: &TransferTask, side: Side) -> &str {
    match side {
        Side::Source => &task.spec.source.instance,
        Side::Target => &task.spec.target.instance,
    }
}

/// How far a side says it is; `None` before its agent has said anything.
pub fn state(task: &TransferTask, side: Side) -> Option<SideState> {
    let status = task.status.as_ref()?;
    match side {
        Side::Source => status.source.as_ref().map(|half| half.state),
        Side::Target => status.target.as_ref().map(|half| half.state),
    }
}

/// What the other side has published for us: its metadata and the name of the worker that it must carry.
pub fn peer(task: &TransferTask, our_side: Side) -> Option<(String, String)> {
    let status = task.status.as_ref()?;
    match our_side {
        Side::Source => {
            let target = status.target.as_ref().filter(|half| !half.state.is_terminal())?;
            Some((target.rdma_metadata.clone()?, target.worker.clone()?))
        }
        Side::Target => {
            let source = status.source.as_ref().filter(|half| !half.state.is_terminal())?;
            Some((source.agent_metadata.clone()?, source.worker.clone()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn task(status: serde_json::Value, cancel: bool) -> TransferTask {
        serde_json::from_value(json!({
            "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "TransferTask",
            "metadata": {"name": "t", "namespace": "default", "uid": "u"},
            "spec": {
                "jobRef": {"name": "j", "uid": "1"}, "run": 1, "attempt": 0, "failures": 0, "direction": "Write",
                "source": {"nodeName": "a", "instance": "ours", "volume": {"name": "v", "path": "p"}},
                "target": {"nodeName": "b", "nodeUID": "n", "instance": "other", "destination": "d",
                           "volume": {"name": "v", "path": "p"}},
                "transport": {}, "integrity": {}, "writePolicy": "Overwrite",
                "deadlines": {"pendingSeconds": 1, "progressSeconds": 1}, "cancel": cancel
            },
            "status": status
        }))
        .unwrap()
    }

    #[test]
    fn orders() {
        let half = |state: &str| json!({"source": {"state": state}});
        let cases = [
            (json!({}), false, "ours", Order::Run),
            (half("Prepared"), false, "ours", Order::Run),
            (half("Active"), true, "ours", Order::Cancel),
            (json!({}), true, "newer", Order::Cancel),
            (json!({}), false, "newer", Order::Restarted),
            (half("Active"), false, "newer", Order::Restarted),
            (half("Succeeded"), true, "ours", Order::Nothing),
            (half("Failed"), false, "newer", Order::Nothing),
        ];
        for (status, cancel, instance, expected) in cases {
            let task = task(status.clone(), cancel);
            assert_eq!(order(&task, Side::Source, instance), expected, "{status} cancel {cancel} {instance}");
        }
    }

    #[test]
    fn a_peer_is_there_only_with_metadata_and_name_and_while_it_is_not_over() {
        let target = |state: &str| json!({"target": {"state": state, "rdmaMetadata": "{}", "worker": "w"}});
        let peer_of = |status| peer(&task(status, false), Side::Source);
        assert_eq!(peer_of(target("Prepared")), Some(("{}".into(), "w".into())));
        assert_eq!(peer_of(target("Failed")), None);
        assert_eq!(peer_of(json!({"target": {"state": "Prepared", "worker": "w"}})), None);
        assert_eq!(peer_of(json!({})), None);
    }
}
