//! The rights of operator and agents are exactly what they use: nothing is refused to them, and nothing is granted that nobody
//! asks for, by the API server's own record of a run that does all that they do.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Result, ensure};
use devcluster::{AGENT_GROUP, OPERATOR_GROUP};
use kube::api::DeleteParams;
use nixl_transfer_client::shared_memory;
use nixl_transfer_tests::{
    Cluster, Setup,
    data::write_file,
    jobs::{one_to_one, with},
    regions::{file, held_by_agent, job, memory, region},
    workloads::Sockets,
};
use serde::Deserialize;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// Role, verb, and group, resource and subresource.
type Right = (&'static str, String, String);

/// Used where this run does not lead: with the test that does.
const SELDOM: [(&str, &str, &str); 2] = [
    // An operator that was killed after it had made a task: `faults::an_operator_that_dies_after_every_single_write_still_finishes_the_job`.
    ("operator", "get", "nixl-transfer.io/transfertasks"),
    // The verdict about an agent that says nothing any more: `faults::an_agent_that_stays_away_is_fenced_and_named`.
    ("operator", "patch", "nixl-transfer.io/transfertasks/status"),
];

/// What the chart's rules grant.
fn granted() -> Result<BTreeSet<Right>> {
    let text = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/nixl-transfer/files/rbac.yaml"),
    )?;
    let mut rights = BTreeSet::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let role = Value::deserialize(document)?;
        let who = match role["metadata"]["name"].as_str() {
            Some("nixl-transfer-operator" | "nixl-transfer-operator-labels") => "operator",
            Some("nixl-transfer-agent") => "agent",
            _ => continue,
        };
        let words = |rule: &Value, key: &str| -> Vec<String> {
            let list = rule[key].as_array().into_iter().flatten();
            list.filter_map(|word| word.as_str().map(str::to_owned)).collect()
        };
        for rule in role["rules"].as_array().into_iter().flatten() {
            for group in words(rule, "apiGroups") {
                for resource in words(rule, "resources") {
                    let what = format!("{group}/{resource}");
                    rights.extend(words(rule, "verbs").into_iter().map(|verb| (who, verb, what.clone())));
                }
            }
        }
    }
    Ok(rights)
}

/// What was asked for, and what of it was refused.
fn used(audit: &str) -> (BTreeSet<Right>, Vec<String>) {
    let (mut rights, mut refused) = (BTreeSet::new(), Vec::new());
    for event in audit.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let is_of = |group: &str| {
            event["user"]["groups"].as_array().is_some_and(|all| all.iter().any(|it| it == group))
        };
        let who = match (is_of(OPERATOR_GROUP), is_of(AGENT_GROUP)) {
            (true, _) => "operator",
            (_, true) => "agent",
            _ => continue,
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (object, verb) = (&event["objectRef"], text(&event["verb"]));
        if !object.is_object() {
            // Discovery and health, which everybody may read.
            continue;
        }
        let subresource = object["subresource"].as_str().map(|name| format!("/{name}")).unwrap_or_default();
        let what = format!("{}/{}{subresource}", text(&object["apiGroup"]), text(&object["resource"]));
        if event["responseStatus"]["code"] == 403 {
            refused.push(format!("{who}: {verb} {what}"));
        }
        rights.insert((who, verb, what));
    }
    (rights, refused)
}

/// Everything that needs a right, once.
async fn run_everything(cluster: &mut Cluster, sockets: &Sockets) -> Result<()> {
    write_file(&cluster.path("a", "file"), 4 * MIB, 1)?;
    cluster.apply(&one_to_one("plain", ("a", "file"), ("b", "plain")))?;
    cluster.wait_complete("plain", SOON).await?;
    // Memory of an agent and of a pod.
    cluster.apply(&held_by_agent("held", "b", 4 * MIB))?;
    cluster.apply(&region("lent", "b", json!({"workload": {}})))?;
    let mut pod = cluster.workload(sockets, "lender", "b")?;
    pod.hand_over("lent", &shared_memory(4 * MIB)?, 4 * MIB, SOON)?;
    cluster.apply(&job("memory", file("a", "file"), &[memory("held"), memory("lent")]))?;
    cluster.wait_complete("memory", SOON).await?;
    // An agent that dies under a transfer, which is tried again and then deleted.
    let slowly = json!({"bandwidthLimit": "256Ki"});
    cluster.apply(&with(one_to_one("slow", ("a", "file"), ("b", "slow")), "transport", slowly))?;
    cluster.wait_moving("slow", 1, SOON).await?;
    cluster.agent_mut("b").kill9()?;
    cluster.agent_mut("b").restart()?;
    let retried = |job: &nixl_transfer_crds::TransferJob| {
        let destination = job.status.as_ref().and_then(|status| status.destinations.first());
        destination.is_some_and(|it| it.attempt > 0)
    };
    cluster.wait_for("slow", SOON, "tried again", retried).await?;
    // A job that labels its node, and whose time is over as soon as it is.
    let brief = with(one_to_one("brief", ("a", "file"), ("b", "brief")), "labelNodes", json!(true));
    cluster.apply(&with(brief, "ttlSecondsAfterFinished", json!(0)))?;
    cluster.wait_gone("brief", SOON).await?;
    for job in ["slow", "plain", "memory"] {
        cluster.jobs().delete(job, &DeleteParams::default()).await?;
    }
    cluster.assert_nothing_left(&["a"], SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_and_agents_may_do_what_they_do_and_no_more() -> Result<()> {
    let sockets = Sockets::new()?;
    let setup = Setup::nodes(&["a", "b"]).agent_config("b", sockets.config("b")).audited();
    let setup = setup.operator_argument("--leader-elect").operator_argument("--label-nodes");
    let mut cluster = setup.start().await?;
    cluster.may_label()?;
    run_everything(&mut cluster, &sockets).await?;
    let (used, refused) = used(&cluster.plane.audited()?);
    ensure!(refused.is_empty(), "refused: {refused:#?}");
    let granted = granted()?;
    ensure!(granted.len() > 20, "the rules were read: {granted:?}");
    let beyond: Vec<_> = used.difference(&granted).collect();
    ensure!(beyond.is_empty(), "used without a rule, which somebody else must have granted: {beyond:#?}");
    let is_seldom = |(who, verb, what): &&Right| SELDOM.contains(&(*who, verb.as_str(), what.as_str()));
    let idle: Vec<_> = granted.difference(&used).filter(|right| !is_seldom(right)).collect();
    ensure!(idle.is_empty(), "granted and never used: {idle:#?}");
    Ok(())
}
