//! The bad-input table of the API, through the real API server: who refuses it, and with which words.

use anyhow::{Result, ensure};
use kube::{
    Error,
    api::{Patch, PatchParams},
};
use nixl_transfer_tests::{Cluster, Setup, jobs, refusals::Refusals};
use serde_json::{Value, json};

/// A change to a good job, and what the user must read.
type Case = (&'static str, fn(&mut Value), &'static [&'static str]);

const REFUSED_BY_THE_API_SERVER: &[Case] = &[
    (
        "no source",
        |job| drop(job["spec"].as_object_mut().unwrap().remove("source")),
        &["spec.source", "Required"],
    ),
    (
        "no kind of source",
        |job| drop(job["spec"]["source"].as_object_mut().unwrap().remove("volume")),
        &["spec.source:", "exactly one of volume and memory"],
    ),
    (
        "two kinds of source",
        |job| job["spec"]["source"]["memory"] = json!({"name": "kv"}),
        &["spec.source:", "exactly one of volume and memory"],
    ),
    (
        "two kinds of destination",
        |job| job["spec"]["destinations"][0]["memory"] = json!({"name": "kv"}),
        &["spec.destinations[0]:", "exactly one of volume and memory"],
    ),
    (
        "a volume without a node",
        |job| drop(job["spec"]["destinations"][0].as_object_mut().unwrap().remove("node")),
        &["spec.destinations[0]:", "a volume needs a node"],
    ),
    (
        "memory without a name",
        |job| job["spec"]["source"] = json!({"memory": {}}),
        &["spec.source.memory.name", "Required"],
    ),
    ("no destination", |job| job["spec"]["destinations"] = json!([]), &["spec.destinations", "at least 1"]),
    (
        "a node by name and selector",
        |job| job["spec"]["source"]["node"]["selector"] = json!({}),
        &["spec.source.node", "exactly one of name and selector"],
    ),
    (
        "a node by nothing",
        |job| job["spec"]["destinations"][0]["node"] = json!({}),
        &["spec.destinations[0].node", "exactly one of name and selector"],
    ),
    ("unknown field", |job| job["spec"]["destnations"] = json!(1), &["unknown field \"spec.destnations\""]),
    (
        "a field of a later version",
        |job| job["spec"]["schedule"] = json!("@daily"),
        &["unknown field \"spec.schedule\""],
    ),
    (
        "a manager without a domain",
        |job| job["spec"]["managedBy"] = json!("kueue"),
        &["spec.managedBy", "should match"],
    ),
    (
        "too high a priority",
        |job| job["spec"]["priority"] = json!(2_000_000_000),
        &["spec.priority", "less than or equal to 1000000000"],
    ),
    (
        "a label for memory",
        |job| {
            job["spec"]["labelNodes"] = json!(true);
            job["spec"]["destinations"] = json!([{"name": "kv", "memory": {"name": "kv"}}]);
        },
        &["labelNodes is for destinations with a volume"],
    ),
    (
        "a negative time to live",
        |job| job["spec"]["ttlSecondsAfterFinished"] = json!(-1),
        &["spec.ttlSecondsAfterFinished", "greater than or equal to 0"],
    ),
    (
        "unknown enum value",
        |job| job["spec"]["writePolicy"] = json!("Merge"),
        &["spec.writePolicy", "SkipIdentical", "FailIfExists"],
    ),
    (
        "no integrity",
        |job| job["spec"]["integrity"] = json!({"algorithm": "None"}),
        &["spec.integrity.algorithm", "XXH3"],
    ),
    (
        "absolute path",
        |job| job["spec"]["source"]["volume"]["path"] = json!("/etc/passwd"),
        &["spec.source.volume.path", "relative", "leading slash"],
    ),
    (
        "path that climbs",
        |job| job["spec"]["source"]["volume"]["path"] = json!("a/../../b"),
        &["spec.source.volume.path", "must not contain '..'"],
    ),
    (
        "destination that climbs",
        |job| job["spec"]["destinations"][0]["volume"]["path"] = json!(".."),
        &["spec.destinations[0].volume.path", "must not contain '..'"],
    ),
    (
        "absolute destination",
        |job| job["spec"]["destinations"][0]["volume"]["path"] = json!("/out"),
        &["spec.destinations[0].volume.path", "relative", "leading slash"],
    ),
    (
        "newline in a destination",
        |job| job["spec"]["destinations"][0]["volume"]["path"] = json!("a\nb"),
        &["spec.destinations[0].volume.path", "control characters"],
    ),
    (
        "newline in a path",
        |job| job["spec"]["source"]["volume"]["path"] = json!("a\nb"),
        &["spec.source.volume.path", "control characters"],
    ),
    (
        "NUL in a path",
        |job| job["spec"]["source"]["volume"]["path"] = json!("a\u{0}b"),
        &["spec.source.volume.path", "control characters"],
    ),
    (
        "long path",
        |job| job["spec"]["source"]["volume"]["path"] = json!("x".repeat(1025)),
        &["spec.source.volume.path", "1024"],
    ),
    (
        "chunkSize 0",
        |job| job["spec"]["transport"] = json!({"chunkSize": 0}),
        &["spec.transport.chunkSize", "64Ki to 64Mi"],
    ),
    (
        "chunkSize 3Ki",
        |job| job["spec"]["transport"] = json!({"chunkSize": "3Ki"}),
        &["spec.transport.chunkSize", "64Ki to 64Mi"],
    ),
    (
        "chunkSize 3 KiB",
        |job| job["spec"]["transport"] = json!({"chunkSize": "3 KiB"}),
        &["spec.transport.chunkSize", "64Ki to 64Mi"],
    ),
    (
        "chunkSize -1",
        |job| job["spec"]["transport"] = json!({"chunkSize": -1}),
        &["spec.transport.chunkSize", "64Ki to 64Mi"],
    ),
    (
        "chunkSize 5 apples",
        |job| job["spec"]["transport"] = json!({"chunkSize": "5 apples"}),
        &["spec.transport.chunkSize", "64Ki to 64Mi"],
    ),
    (
        "chunkSize 65537",
        |job| job["spec"]["transport"] = json!({"chunkSize": 65537}),
        &["spec.transport.chunkSize", "multiple of 4Ki"],
    ),
    (
        "bandwidthLimit 1Ki",
        |job| job["spec"]["transport"] = json!({"bandwidthLimit": "1Ki"}),
        &["spec.transport.bandwidthLimit", "64Ki to 1Pi", "100M"],
    ),
    (
        "bandwidthLimit fast",
        |job| job["spec"]["transport"] = json!({"bandwidthLimit": "fast"}),
        &["spec.transport.bandwidthLimit", "64Ki to 1Pi"],
    ),
    (
        "inFlight 0",
        |job| job["spec"]["transport"] = json!({"inFlight": 0}),
        &["spec.transport.inFlight", "greater than or equal to 1"],
    ),
    (
        "negative deadline",
        |job| job["spec"]["progressDeadlineSeconds"] = json!(-5),
        &["spec.progressDeadlineSeconds", "greater than or equal to 1"],
    ),
    (
        "backoffLimit 101",
        |job| job["spec"]["backoffLimit"] = json!(101),
        &["spec.backoffLimit", "less than or equal to 100"],
    ),
    (
        "65 destinations",
        |job| {
            let one = job["spec"]["destinations"][0].clone();
            let named = |at: usize| {
                let mut one = one.clone();
                one["name"] = json!(format!("d{at}"));
                one
            };
            job["spec"]["destinations"] = (0..65).map(named).collect();
        },
        &["spec.destinations", "at most 64"],
    ),
    (
        "two destinations of one name",
        |job| {
            let one = job["spec"]["destinations"][0].clone();
            job["spec"]["destinations"] = json!([one, one]);
        },
        &["spec.destinations[1]", "Duplicate value"],
    ),
    ("long name", |job| job["metadata"]["name"] = json!("x".repeat(53)), &["metadata.name", "52 characters"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_refuses_wrong_objects_with_the_field_and_the_remedy() -> Result<()> {
    let cluster = Setup::nodes(&[]).without_operator().start().await?;
    let good = jobs::one_to_one("good", ("a", "in"), ("b", "out"));
    cluster.apply(&good)?;
    let mut refusals = Refusals::default();
    for (what, change, words) in REFUSED_BY_THE_API_SERVER {
        let mut job = good.clone();
        job["metadata"]["name"] = json!("bad");
        change(&mut job);
        refusals.expect(what, words, cluster.apply(&job));
    }
    refusals.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_apply_changes_nothing() -> Result<()> {
    let cluster = Setup::nodes(&[]).without_operator().start().await?;
    let mut job = jobs::one_to_one("same", ("a", "in"), ("b", "out"));
    job["spec"]["transport"] = json!({"chunkSize": "256Ki"});
    cluster.apply(&job)?;
    let second = cluster.apply(&job)?;
    ensure!(second.contains("unchanged"), "{second}");
    let server_side = cluster.plane.admin().run_with_input(
        &["apply", "--server-side", "--force-conflicts", "-f", "-"],
        Some(&job.to_string()),
    )?;
    ensure!(server_side.contains("serverside-applied"), "{server_side}");
    Ok(())
}

fn task(change: impl FnOnce(&mut Value)) -> Value {
    let mut task = json!({
        "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "TransferTask",
        "metadata": {"name": "by-hand", "namespace": "default"},
        "spec": {
            "jobRef": {"name": "j", "uid": "0"}, "run": 1, "attempt": 0, "failures": 0, "direction": "Write",
            "source": {"nodeName": "a", "instance": "1", "volume": {"name": "data", "path": "in"}},
            "target": {"nodeName": "b", "nodeUID": "1", "instance": "2", "destination": "d",
                       "volume": {"name": "data", "path": "out"}},
            "transport": {"chunkSize": "1Mi", "inFlight": 1, "backends": ["UCX"]}, "integrity": {},
            "writePolicy": "SkipIdentical",
            "deadlines": {"pendingSeconds": 30, "progressSeconds": 30}, "cancel": false
        }
    });
    change(&mut task["spec"]);
    task
}

/// Patches the task `by-hand`; gives the words of the refusal.
async fn refusal(cluster: &Cluster, patch: &Value) -> Result<Option<String>> {
    let (tasks, parameters) = (cluster.tasks(), PatchParams::default());
    let merge = Patch::Merge(patch);
    let patched = if patch.get("status").is_some() {
        tasks.patch_status("by-hand", &parameters, &merge).await
    } else {
        tasks.patch("by-hand", &parameters, &merge).await
    };
    match patched {
        Ok(_) => Ok(None),
        Err(Error::Api(status)) if status.code == 422 => Ok(Some(status.message)),
        Err(error) => Err(error.into()),
    }
}

/// What the fence and the verdict rest on holds whoever writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_immutable_but_for_cancel_and_its_halves_only_go_forward() -> Result<()> {
    let cluster = Setup::nodes(&[]).without_operator().start().await?;
    for side in ["source", "target"] {
        for (path, word) in [("/in", "leading slash"), ("a/..", "'..'"), ("a\nb", "control characters")] {
            let bad = task(|spec| spec[side]["volume"]["path"] = json!(path));
            let error = cluster.apply(&bad).err().map(|error| format!("{error:#}")).unwrap_or_default();
            ensure!(error.contains(word), "{side} {path:?}: {error:?}");
        }
    }
    let bad = task(|spec| spec["transport"]["chunkSize"] = json!("3Ki"));
    let error = cluster.apply(&bad).err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(error.contains("64Ki to 64Mi"), "{error:?}");
    cluster.apply(&task(|_| ()))?;

    let half = |side: &str, value: Value| json!({"status": {side: value}});
    let verdict = |message: &str| {
        let time = "2026-01-01T00:00:00Z";
        json!({"status": {"verdict": {"reason": "AgentNotReady", "message": message, "time": time}}})
    };
    let mut steps = vec![
        (json!({"spec": {"run": 2}}), Some("immutable but for cancel")),
        (json!({"spec": {"attempt": 1}}), Some("immutable but for cancel")),
        (json!({"spec": {"failures": 1}}), Some("immutable but for cancel")),
        (json!({"spec": {"jobRef": {"uid": "1"}}}), Some("immutable but for cancel")),
        (json!({"spec": {"source": {"instance": "3"}}}), Some("immutable but for cancel")),
        (json!({"spec": {"target": {"volume": {"path": "elsewhere"}}}}), Some("immutable but for cancel")),
        (json!({"spec": {"writePolicy": "Overwrite"}}), Some("immutable but for cancel")),
        (json!({"spec": {"transport": {"inFlight": 2}}}), Some("immutable but for cancel")),
        (json!({"spec": {"integrity": {"readBack": true}}}), Some("immutable but for cancel")),
        (json!({"spec": {"deadlines": {"pendingSeconds": 31}}}), Some("immutable but for cancel")),
        (json!({"spec": {"cancel": true}}), None),
        (json!({"spec": {"cancel": false}}), Some("stays cancelled")),
    ];
    for side in ["source", "target"] {
        steps.push((half(side, json!({"state": "Prepared"})), None));
        steps.push((half(side, json!({"state": "Pending"})), Some("only goes forward")));
        steps.push((half(side, Value::Null), Some("never removed")));
        steps.push((half(side, json!({"state": "Failed"})), None));
        for state in ["Active", "Succeeded", "Cancelled"] {
            steps.push((half(side, json!({"state": state})), Some("only goes forward")));
        }
    }
    steps.push((verdict("one"), None));
    steps.push((verdict("another"), Some("given once")));
    steps.push((json!({"status": {"verdict": null}}), Some("given once")));
    for (patch, word) in steps {
        match (refusal(&cluster, &patch).await?, word) {
            (None, None) => {}
            (Some(message), Some(word)) if message.contains(word) => {}
            (found, word) => anyhow::bail!("{patch}: expected {word:?}, got {found:?}"),
        }
    }
    Ok(())
}
