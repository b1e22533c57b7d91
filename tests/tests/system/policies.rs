//! The chart's admission policies as a table: who may write what, when RBAC lets everybody do everything.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use nixl_transfer_tests::{Cluster, Setup};
use serde_json::{Value, json};

const OURS: &str = "nixl-transfer-system";
const PEOPLE: &str = "default";
/// A policy counts within this time after it was made.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(30);

/// What the API server makes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Allowed,
    Refused,
}
use Answer::{Allowed, Refused};

/// Everybody who asks for something, by token.
struct People<'a> {
    cluster: &'a Cluster,
    tokens: BTreeMap<&'static str, String>,
}

impl<'a> People<'a> {
    fn new(cluster: &'a Cluster) -> Result<Self> {
        let accounts = [
            (OURS, "nixl-transfer-agent"),
            (OURS, "nixl-transfer-operator"),
            (OURS, "nixl-transfer-cleanup"),
            ("kube-system", "generic-garbage-collector"),
            (PEOPLE, "default"),
            (PEOPLE, "person"),
        ];
        let subjects = accounts
            .map(|(namespace, name)| json!({"kind": "ServiceAccount", "namespace": namespace, "name": name}));
        let mut items: Vec<Value> = accounts
            .iter()
            .map(|(namespace, name)| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": namespace, "name": name}}))
            .collect();
        items.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "everybody"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": subjects,
        }));
        items.extend(["a", "b"].map(|node| {
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("agent-{node}"), "namespace": OURS},
                "spec": {"nodeName": node, "serviceAccountName": "nixl-transfer-agent", "containers": [{"name": "c", "image": "none"}]},
            })
        }));
        for item in items {
            cluster.plane.apply_text(&item.to_string())?;
        }
        let token = |namespace: &str, account: &str, pod: Option<&str>| -> Result<String> {
            let (namespace, bound) = (
                format!("--namespace={namespace}"),
                format!("--bound-object-name={}", pod.unwrap_or_default()),
            );
            let mut words = vec!["create", "token", account, &namespace];
            if pod.is_some() {
                words.extend(["--bound-object-kind=Pod", &bound]);
            }
            Ok(cluster.plane.kubectl(&words)?.trim().to_owned())
        };
        let tokens = BTreeMap::from([
            ("agent a", token(OURS, "nixl-transfer-agent", Some("agent-a"))?),
            ("agent b", token(OURS, "nixl-transfer-agent", Some("agent-b"))?),
            ("agent of no node", token(OURS, "nixl-transfer-agent", None)?),
            ("operator", token(OURS, "nixl-transfer-operator", None)?),
            ("cleanup", token(OURS, "nixl-transfer-cleanup", None)?),
            ("collector", token("kube-system", "generic-garbage-collector", None)?),
            ("pod", token(PEOPLE, "default", None)?),
            ("person", token(PEOPLE, "person", None)?),
        ]);
        Ok(Self { cluster, tokens })
    }

    /// What the API server makes of a request by this one.
    fn ask(&self, who: &str, request: &Request) -> Result<Answer> {
        let token = self.tokens.get(who).map(|token| format!("--token={token}"));
        let (mut words, input) = request.words();
        words.extend(token);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match self.cluster.plane.admin().run_with_input(&words, input.as_deref()) {
            Ok(_) => Ok(Allowed),
            Err(error) => {
                let said = format!("{error:#}");
                // A policy that cannot be evaluated refuses too, and that is a mistake.
                let by_policy =
                    said.contains("ValidatingAdmissionPolicy") && !said.contains("resulted in error");
                if by_policy {
                    Ok(Refused)
                } else {
                    bail!("{who}: {}", said.split("failed: ").last().unwrap_or_default())
                }
            }
        }
    }
}

/// Something that is asked for.
enum Request {
    Create(Value),
    /// Kind and name, its namespace, and what changes; of the status if that is all.
    Patch(&'static str, &'static str, Value),
    Delete(&'static str, &'static str),
}
use Request::{Create, Delete, Patch};

impl Request {
    fn words(&self) -> (Vec<String>, Option<String>) {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
        match self {
            Create(object) => (words(&["create", "-f", "-"]), Some(object.to_string())),
            Patch(what, namespace, change) => {
                let (namespace, patch) = (format!("--namespace={namespace}"), format!("--patch={change}"));
                let mut all = words(&["patch", what, &namespace, "--type=merge", &patch]);
                if change.get("status").is_some() {
                    all.push("--subresource=status".into());
                }
                (all, None)
            }
            Delete(what, namespace) => {
                (words(&["delete", what, &format!("--namespace={namespace}"), "--wait=false"]), None)
            }
        }
    }
}

fn task(name: &str) -> Request {
    Create(json!({
        "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "TransferTask",
        "metadata": {"name": name, "namespace": PEOPLE, "finalizers": ["nixl-transfer.io/task"]},
        "spec": {
            "jobRef": {"name": "j", "uid": "1"}, "run": 1, "attempt": 0, "failures": 0, "direction": "Write",
            "source": {"nodeName": "a", "instance": "i", "volume": {"name": "v"}},
            "target": {"nodeName": "b", "nodeUID": "u", "instance": "i", "destination": "d", "volume": {"name": "v"}},
            "transport": {}, "integrity": {}, "writePolicy": "SkipIdentical",
            "deadlines": {"pendingSeconds": 60, "progressSeconds": 60},
        },
    }))
}

fn node(name: &str) -> Request {
    Create(
        json!({"apiVersion": "nixl-transfer.io/v1alpha1", "kind": "TransferNode", "metadata": {"name": name}, "spec": {}}),
    )
}

fn lease(name: &str, namespace: &str) -> Request {
    Create(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "namespace": namespace}, "spec": {},
    }))
}

fn renewed(what: &'static str, number: usize) -> Request {
    Patch(what, OURS, json!({"spec": {"holderIdentity": number.to_string()}}))
}

fn labelled(key: &str, value: &str) -> Request {
    Patch("node/a", "", json!({"metadata": {"labels": {key: value}}}))
}

fn halves(state: &[(&str, &str)]) -> Request {
    let halves = state.iter().map(|(half, state)| ((*half).to_owned(), json!({"state": state})));
    Patch("tt/t", PEOPLE, json!({"status": halves.collect::<serde_json::Map<_, _>>()}))
}

fn verdict() -> Request {
    let verdict = json!({"reason": "IoError", "message": "m", "time": "2026-01-01T00:00:00Z"});
    Patch("tt/t", PEOPLE, json!({"status": {"verdict": verdict}}))
}

/// In this order: what is made first is changed and deleted later.
fn table() -> Vec<(Answer, &'static str, Request)> {
    let label = || json!({"metadata": {"labels": {"a": "b"}}});
    let unfinished = || json!({"metadata": {"finalizers": null}});
    let drained = || json!({"spec": {"unschedulable": true}});
    let instance = |it: &str| json!({"status": {"instance": it}});
    let region = json!({
        "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "MemoryRegion", "metadata": {"name": "r", "namespace": PEOPLE},
        "spec": {"node": {"name": "a"}, "agent": {"size": "1Mi"}},
    });
    vec![
        // Tasks are the operator's to make; Kubernetes itself and administrators may clean up.
        (Refused, "person", task("t")),
        (Refused, "pod", task("t")),
        (Refused, "agent a", task("t")),
        (Allowed, "operator", task("t")),
        (Allowed, "administrator", task("o")),
        (Refused, "person", Patch("tt/t", PEOPLE, label())),
        (Refused, "person", Delete("tt/t", PEOPLE)),
        (Refused, "person", verdict()),
        (Refused, "agent a", Patch("tt/t", PEOPLE, label())),
        (Refused, "agent a", Patch("tt/t", PEOPLE, json!({"spec": {"cancel": true}}))),
        (Refused, "agent a", Delete("tt/t", PEOPLE)),
        (Allowed, "operator", Patch("tt/t", PEOPLE, json!({"spec": {"cancel": true}}))),
        (Allowed, "collector", Patch("tt/t", PEOPLE, label())),
        // Each agent has its half of it, the operator the verdict. It goes from a to b.
        (Allowed, "agent a", halves(&[("source", "Pending")])),
        (Refused, "agent b", halves(&[("source", "Prepared")])),
        (Refused, "agent of no node", halves(&[("source", "Prepared")])),
        (Refused, "operator", halves(&[("source", "Prepared")])),
        (Refused, "agent a", halves(&[("target", "Pending")])),
        (Allowed, "agent b", halves(&[("target", "Pending")])),
        (Refused, "agent a", halves(&[("source", "Prepared"), ("target", "Prepared")])),
        (Refused, "agent b", verdict()),
        (Allowed, "agent a", halves(&[("source", "Prepared")])),
        (Allowed, "operator", verdict()),
        (Allowed, "agent b", halves(&[("target", "Prepared")])),
        (Allowed, "administrator", halves(&[("source", "Active")])),
        // An agent has the TransferNode of its node, but for draining it.
        (Refused, "agent b", node("a")),
        (Refused, "agent of no node", node("a")),
        (Allowed, "agent a", node("a")),
        (Allowed, "agent a", Patch("tn/a", "", instance("i"))),
        (Refused, "agent b", Patch("tn/a", "", instance("j"))),
        (Refused, "agent a", Patch("tn/a", "", drained())),
        (Refused, "agent a", Delete("tn/a", "")),
        (Allowed, "person", Patch("tn/a", "", drained())),
        // And the status of its node's regions, which a workload may write too.
        (Allowed, "person", Create(region)),
        (Allowed, "agent a", Patch("mr/r", PEOPLE, instance("i"))),
        (Refused, "agent b", Patch("mr/r", PEOPLE, instance("j"))),
        (Refused, "agent a", Patch("mr/r", PEOPLE, label())),
        (Allowed, "person", Patch("mr/r", PEOPLE, instance("k"))),
        // A Lease is of the node that it is named as, one of the operators; those of others are none of ours.
        (Allowed, "agent a", lease("a", OURS)),
        (Refused, "agent b", lease("c", OURS)),
        (Refused, "agent of no node", lease("b", OURS)),
        (Allowed, "agent a", renewed("lease/a", 1)),
        (Refused, "agent b", renewed("lease/a", 2)),
        (Refused, "operator", renewed("lease/a", 3)),
        (Allowed, "operator", lease("nixl-transfer-operator", OURS)),
        (Allowed, "operator", renewed("lease/nixl-transfer-operator", 4)),
        (Refused, "agent a", renewed("lease/nixl-transfer-operator", 5)),
        (Allowed, "cleanup", renewed("lease/nixl-transfer-operator", 6)),
        (Refused, "agent a", Delete("lease/a", OURS)),
        (Allowed, "person", lease("other", OURS)),
        (Allowed, "person", lease("a", PEOPLE)),
        // Of nodes the operator has the labels that say where data is.
        (Allowed, "operator", labelled("data.nixl-transfer.io/ns.job", "ready")),
        (Refused, "operator", labelled("role", "mine")),
        (Refused, "operator", Patch("node/a", "", json!({"spec": {"unschedulable": true}}))),
        (Refused, "operator", Patch("node/a", "", json!({"metadata": {"annotations": {"a": "b"}}}))),
        (Allowed, "person", labelled("role", "theirs")),
        (Refused, "operator", labelled("role", "mine")),
        (
            Allowed,
            "operator",
            Patch("node/a", "", json!({"metadata": {"labels": {"data.nixl-transfer.io/ns.job": null}}})),
        ),
        (Refused, "operator", Delete("node/a", "")),
        // The end of a task.
        (Refused, "person", Patch("tt/t", PEOPLE, unfinished())),
        (Allowed, "cleanup", Delete("tt/t", PEOPLE)),
        (Allowed, "cleanup", Patch("tt/t", PEOPLE, unfinished())),
        (Allowed, "collector", Delete("tt/o", PEOPLE)),
        (Allowed, "operator", Patch("tt/o", PEOPLE, unfinished())),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_writes_what_is_its_own_and_nothing_else() -> Result<()> {
    let setup = Setup::nodes(&[]).node_without_agent("a").node_without_agent("b").without_operator();
    let cluster = setup.start().await?;
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/nixl-transfer/files/policies.yaml");
    cluster.plane.apply(&[&policies])?;
    let people = tokio::task::block_in_place(|| People::new(&cluster))?;
    // One after the other they come into force; the last one of the file has when a Lease is refused.
    let deadline = std::time::Instant::now() + IN_FORCE_WITHIN;
    for probe in [task("probe"), node("probe"), lease("probe", OURS)] {
        let dry = |request: &Request| -> Result<Answer> {
            let (mut words, input) = request.words();
            words.extend([
                "--dry-run=server".into(),
                format!("--token={}", people.tokens["agent of no node"]),
            ]);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let asked = cluster.plane.admin().run_with_input(&words, input.as_deref());
            Ok(if asked.is_ok() { Allowed } else { Refused })
        };
        while dry(&probe)? == Allowed {
            ensure!(std::time::Instant::now() < deadline, "the policies are not in force");
            tokio::time::sleep(Duration::from_millis(200)).await; // polls, with a deadline
        }
    }
    let mut wrong = Vec::new();
    for (row, (wanted, who, request)) in table().into_iter().enumerate() {
        let answer = people.ask(who, &request).with_context(|| format!("row {row}"))?;
        if answer != wanted {
            wrong.push(format!("row {row}: {who}: {answer:?} {:?}", request.words().0));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}
