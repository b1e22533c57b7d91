//! Wrong MemoryRegions, through the real API server: who refuses them, and with which words.

use anyhow::{Result, ensure};
use nixl_transfer_tests::{Setup, refusals::Refusals, regions::held_by_agent};
use serde_json::{Value, json};

/// A change to a good region, and what the user must read.
type Case = (&'static str, fn(&mut Value), &'static [&'static str]);

const REFUSED_BY_THE_API_SERVER: &[Case] = &[
    (
        "nobody's memory",
        |spec| drop(spec.as_object_mut().unwrap().remove("agent")),
        &["exactly one of agent"],
    ),
    (
        "two kinds",
        |spec| spec["workload"] = json!({}),
        &["spec:", "exactly one of agent, workload and external"],
    ),
    ("no node", |spec| drop(spec.as_object_mut().unwrap().remove("node")), &["spec.node", "Required"]),
    ("no size", |spec| spec["agent"] = json!({}), &["spec.agent.size", "Required"]),
    ("nothing", |spec| spec["agent"]["size"] = json!(0), &["spec.agent.size", "from 1 to 16Ti"]),
    ("less than nothing", |spec| spec["agent"]["size"] = json!("-1"), &["spec.agent.size", "from 1 to 16Ti"]),
    ("too much", |spec| spec["agent"]["size"] = json!("17Ti"), &["spec.agent.size", "from 1 to 16Ti"]),
    ("a part of a byte", |spec| spec["agent"]["size"] = json!("0.5"), &["spec.agent.size", "from 1 to 16Ti"]),
    ("no quantity", |spec| spec["agent"]["size"] = json!("5 apples"), &["spec.agent.size", "from 1 to 16Ti"]),
    ("no device", |spec| spec["agent"]["device"] = json!("gpu0"), &["spec.agent.device", "cuda"]),
    ("no access", |spec| spec["access"] = json!("All"), &["spec.access", "Readable", "ReadWrite"]),
    (
        "no digest",
        |spec| {
            spec.as_object_mut().unwrap().remove("agent");
            spec["external"] = json!({"digest": "md5:00"});
        },
        &["spec.external.digest", "xxh3"],
    ),
    ("unknown field", |spec| spec["agent"]["sise"] = json!("1Gi"), &["unknown field \"spec.agent.sise\""]),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_refuses_wrong_regions_with_the_field_and_the_remedy() -> Result<()> {
    let cluster = Setup::nodes(&[]).without_operator().start().await?;
    let good = held_by_agent("good", "a", 4096);
    cluster.apply(&good)?;
    ensure!(cluster.apply(&good)?.contains("unchanged"));
    let mut refusals = Refusals::default();
    for (what, change, words) in REFUSED_BY_THE_API_SERVER {
        let mut region = good.clone();
        region["metadata"]["name"] = json!("bad");
        change(&mut region["spec"]);
        refusals.expect(what, words, cluster.apply(&region));
    }
    // What cannot change once it is there.
    let replace = |region: &Value| {
        cluster.plane.admin().run_with_input(&["replace", "-f", "-"], Some(&region.to_string()))
    };
    let mut moved = good.clone();
    moved["spec"]["node"]["name"] = json!("b");
    refusals.expect("moved", &["node is immutable"], replace(&moved));
    let mut other = good.clone();
    other["spec"] = json!({"node": {"name": "a"}, "workload": {}});
    refusals.expect("of somebody else", &["whose memory it is cannot change"], replace(&other));
    refusals.finish()?;
    let mut resized = good;
    resized["spec"]["agent"]["size"] = json!("8Ki");
    cluster.apply(&resized)?;
    Ok(())
}
