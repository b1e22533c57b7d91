//! What shall stand in a MemoryRegion's status. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nixl_transfer_crds::{
    MemoryRegion, Reason,
    condition::{self, READY, Truth},
    region::{
        Held, MemoryRegionStatus,
        status::{HolderPod, RegionContent},
    },
};

use crate::{
    protocol::Failure,
    region::{Content, Shown},
};

/// The status, given what stands there, what is held of it and what is wrong.
pub fn status(
    region: &MemoryRegion,
    instance: &str,
    shown: Option<&Shown>,
    trouble: Option<&Failure>,
    consumed: Option<&String>,
    ending: bool,
    now: Timestamp,
) -> MemoryRegionStatus {
    let before = region.status.clone().unwrap_or_default();
    let held = shown.filter(|shown| !ending && Some(&shown.uid) == region.metadata.uid.as_ref());
    let (truth, reason, message) = match (held, trouble) {
        _ if ending => {
            (Truth::False, Reason::RegionNotReady, "the agent is ending, and its memory is gone".to_owned())
        }
        (_, Some(failure)) => (Truth::False, failure.reason, failure.message.clone()),
        (Some(shown), None) => (Truth::True, Reason::Succeeded, format!("{} bytes are there", shown.bytes)),
        (None, None) => (Truth::False, Reason::RegionNotReady, waits_for(&region.spec.held).to_owned()),
    };
    let generation = region.metadata.generation;
    let mut conditions = before.conditions;
    condition::set(&mut conditions, READY, truth, reason, &message, generation, now);
    MemoryRegionStatus {
        observed_generation: generation,
        rdma_metadata: before.rdma_metadata,
        size: held.map(|shown| signed(shown.bytes)),
        device: held.map(|shown| shown.device.clone()),
        instance: Some(instance.to_owned()),
        pod: held
            .and_then(|shown| shown.pod.as_ref())
            .map(|pod| HolderPod { name: pod.name.clone(), uid: pod.uid.clone() }),
        content: held.and_then(|shown| shown.content.as_ref()).map(content),
        consumed: consumed.cloned(),
        conditions,
    }
}

fn waits_for(held: &Held) -> &'static str {
    match held {
        Held::Agent(_) => "the memory is being allocated",
        Held::Workload(_) => "no pod has handed over the memory",
        Held::External(_) => "no workload has written status.rdmaMetadata",
    }
}

/// Whether a status says that the region can be used.
pub fn is_ready(status: &MemoryRegionStatus) -> bool {
    condition::is_true(&status.conditions, READY)
}

fn content(content: &Content) -> RegionContent {
    RegionContent {
        bytes: signed(content.bytes),
        digest: content.digest.clone(),
        job: content.job.clone(),
        // As the API server keeps it.
        time: Time(Timestamp::from_second(content.time.as_second()).unwrap_or(content.time)),
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use nixl_transfer_crds::condition::find;
    use serde_json::json;

    use super::*;

    fn region(held: serde_json::Value) -> MemoryRegion {
        let mut spec = held;
        spec["node"] = json!({"name": "a"});
        serde_json::from_value(json!({
            "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "MemoryRegion",
            "metadata": {"name": "r", "namespace": "ml", "uid": "u", "generation": 3},
            "spec": spec,
            "status": {"rdmaMetadata": "the workload's", "consumed": "older", "size": 7, "instance": "older"},
        }))
        .unwrap()
    }

    fn shown(uid: &str) -> Shown {
        let content = Content {
            bytes: 60,
            digest: "xxh3:0".into(),
            job: "j".into(),
            time: Timestamp::from_millisecond(1_500).unwrap(),
        };
        let (uid, device) = (uid.to_owned(), "cpu".to_owned());
        Shown { uid, bytes: 100, device, offer: None, content: Some(content), pod: None }
    }

    fn ready(status: &MemoryRegionStatus) -> (String, String) {
        let ready = find(&status.conditions, READY).unwrap();
        assert_eq!(ready.observed_generation, Some(3));
        (ready.status.clone(), ready.reason.clone())
    }

    #[test]
    fn what_is_held_is_ready_and_else_it_is_said_what_is_waited_for() {
        let agents = region(json!({"agent": {"size": "100"}}));
        let trouble = Failure::new(Reason::NoSuchDevice, "cuda:9");
        let said = |region: &MemoryRegion, shown: Option<&Shown>, trouble: Option<&Failure>, ending| {
            status(region, "i", shown, trouble, None, ending, Timestamp::UNIX_EPOCH)
        };
        let held = said(&agents, Some(&shown("u")), None, false);
        assert_eq!(ready(&held), ("True".into(), "Succeeded".into()));
        assert_eq!(
            (held.size, held.device.as_deref(), held.instance.as_deref()),
            (Some(100), Some("cpu"), Some("i"))
        );
        let content = held.content.unwrap();
        assert_eq!(
            (content.bytes, content.time.0.as_second()),
            (60, 1),
            "whole seconds, as the API server keeps them"
        );
        for (shown, trouble, ending, reason) in [
            (None, None, false, "RegionNotReady"),
            (Some(&shown("another")), None, false, "RegionNotReady"),
            (None, Some(&trouble), false, "NoSuchDevice"),
            (Some(&shown("u")), None, true, "RegionNotReady"),
        ] {
            let status = said(&agents, shown, trouble, ending);
            assert_eq!(ready(&status), ("False".into(), reason.into()));
            assert_eq!((status.size, status.content), (None, None), "nothing of an earlier instance stays");
            assert_eq!(
                status.rdma_metadata.as_deref(),
                Some("the workload's"),
                "which is not ours to remove"
            );
        }
        for (held, word) in [("agent", "allocated"), ("workload", "no pod"), ("external", "rdmaMetadata")] {
            let spec = json!({held: if held == "agent" { json!({"size": "1"}) } else { json!({}) }});
            let status = said(&region(spec), None, None, false);
            assert!(find(&status.conditions, READY).unwrap().message.contains(word), "{held}");
        }
    }
}
