//! A node on which nothing is wrong, and one change at a time.

use serde_json::{Value, json};

use super::*;

/// A node on which nothing is wrong, with something changed.
fn found(change: impl Fn(&mut Value), seen: Value) -> Vec<(Grade, Option<&'static str>, String)> {
    let mut node = json!({
        "metadata": {"name": "a"}, "spec": {},
        "status": {
            "backends": [{"name": "UCX", "memoryTypes": ["DRAM"]}],
            "nics": [{"name": "mlx5_0", "port": 1, "state": "Active", "rate": 400_000, "pciBusID": "0000:0c:00.0"}],
            "staging": {"total": 256 << 20}, "slots": {"total": 4},
            "volumes": [{"name": "models", "capacity": 1000, "free": 500, "allowedNamespaces": ["*"]}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "Succeeded", "message": "ready for transfers",
                            "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        },
    });
    change(&mut node);
    let mut seen: Seen = serde_json::from_value(seen).unwrap();
    seen.namespace = "ml".into();
    let node: TransferNode = serde_json::from_value(node).unwrap();
    let now = "2026-01-01T00:10:00Z".parse().unwrap();
    findings(&node, &seen, now).into_iter().map(|it| (it.grade, it.reason, it.text)).collect()
}

#[test]
fn a_good_node_has_no_findings() {
    assert_eq!(found(|_| {}, json!({})), []);
    assert_eq!(found(|_| {}, json!({"leases": {"a": "2026-01-01T00:09:30Z"}})), []);
}

#[test]
fn each_trouble_is_found_with_its_reason() {
    let ready = |field: &str, value: &str| {
        let (field, value) = (field.to_owned(), json!(value));
        move |node: &mut Value| node["status"]["conditions"][0][field.as_str()] = value.clone()
    };
    let status =
        |field: &'static str, value: Value| move |node: &mut Value| node["status"][field] = value.clone();
    type Change = Box<dyn Fn(&mut Value)>;
    let cases: Vec<(Change, Grade, Option<&str>, &str)> = vec![
        (Box::new(ready("status", "False")), Grade::Broken, Some("Succeeded"), "ready for transfers. "),
        (Box::new(ready("message", "ready, but NVML fails")), Grade::Poor, None, "works, but NVML fails."),
        (
            Box::new(status("conditions", json!([]))),
            Grade::Broken,
            Some("AgentNotReady"),
            "Look at the agent's pod",
        ),
        (
            Box::new(|node| node["spec"]["unschedulable"] = json!(true)),
            Grade::Poor,
            Some("AgentNotReady"),
            "drained",
        ),
        (Box::new(status("backends", json!([]))), Grade::Broken, Some("BackendUnavailable"), "backend"),
        (Box::new(status("nics", json!([]))), Grade::Poor, Some("NoRdmaDevice"), "TCP was used"),
        (
            Box::new(|node| node["status"]["nics"][0]["state"] = json!("Down")),
            Grade::Poor,
            Some("LinkDown"),
            "Repair",
        ),
        (
            Box::new(|node| node["status"]["nics"][0]["pciBusID"] = json!("")),
            Grade::Poor,
            Some("NoRdmaDevice"),
            "",
        ),
        (
            Box::new(status("memlock", json!((96 << 20) - 1))),
            Grade::Poor,
            Some("MemlockTooSmall"),
            "too small",
        ),
        (
            Box::new(status("memlock", json!(96 << 20))),
            Grade::Poor,
            Some("MemlockTooSmall"),
            "for a job's defaults",
        ),
        (
            Box::new(status("staging", json!({"total": 1 << 20}))),
            Grade::Broken,
            Some("InsufficientStagingMemory"),
            "8388608",
        ),
        (Box::new(status("volumes", json!([]))), Grade::Poor, Some("VolumeNotFound"), "publishes no volume"),
        (
            Box::new(|node| node["status"]["volumes"][0]["allowedNamespaces"] = json!(["other"])),
            Grade::Poor,
            Some("VolumeForbidden"),
            "for namespace ml",
        ),
        (
            Box::new(|node| node["status"]["volumes"][0]["free"] = json!(49)),
            Grade::Poor,
            Some("InsufficientSpace"),
            "models is nearly full",
        ),
    ];
    for (change, grade, reason, text) in cases {
        let found = found(change, json!({}));
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!((found[0].0, found[0].1), (grade, reason), "{found:?}");
        assert!(found[0].2.contains(text), "{text}: {found:?}");
    }
    let enough = (256 << 20) + (64 << 20);
    assert_eq!(found(status("memlock", json!(enough)), json!({})), []);
}

#[test]
fn a_dead_agent_is_found_where_leases_may_be_read() {
    for (leases, text) in [(json!({"a": "2026-01-01T00:05:00Z"}), "for 5m"), (json!({}), "its Lease: look")] {
        let found = found(|_| {}, json!({"leases": leases}));
        assert!(found[0].0 == Grade::Broken && found[0].2.contains(text), "{found:?}");
    }
}
