//! The bad-input table of the API, through the real API server: who refuses it, and with which words.

use anyhow::{Result, ensure};
use nixl_transfer_tests::{Setup, jobs};
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
        &["spec.source.volume", "Required"],
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
        |job| job["spec"]["follow"] = json!(true),
        &["unknown field \"spec.follow\""],
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
    let mut wrong = Vec::new();
    for (what, change, words) in REFUSED_BY_THE_API_SERVER {
        let mut job = good.clone();
        job["metadata"]["name"] = json!("bad");
        change(&mut job);
        match cluster.apply(&job) {
            Ok(_) => wrong.push(format!("{what}: was accepted")),
            Err(error) => {
                let message = format!("{error:#}");
                if let Some(missing) = words.iter().find(|word| !message.contains(**word)) {
                    wrong.push(format!("{what}: no {missing:?} in {message}"));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
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
