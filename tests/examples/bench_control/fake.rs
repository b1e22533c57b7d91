//! Fake agents: the API side of an agent and nothing behind it. Each has a TransferNode, renews a Lease, watches the tasks
//! that it sends and receives for, and writes both states of its half at once.

use std::{collections::HashSet, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::ApiResource,
};
use nixl_transfer_crds::{TransferNode, TransferTask, names::LEASE_RENEW_SECONDS};
use nixl_transfer_tests::cluster::NAMESPACE;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    LONGEST,
    watch::{Counted, follow},
};

/// Requests at once while they begin.
const AT_ONCE: usize = 16;
/// As long as a real capability of one worker with one region.
const CAPABILITY: usize = 420;

/// What the fake agents have been sent, and what anybody would be who sees all tasks.
#[derive(Clone, Debug, Default)]
pub struct Fakes {
    pub agents: Counted,
    pub all: Counted,
}

pub fn name(at: usize) -> String {
    format!("fake-{at:04}")
}

/// Returns when all are ready and all watches open. They end with the set.
pub async fn start(client: &Client, names: &[String]) -> Result<(Fakes, JoinSet<()>)> {
    let mut running = JoinSet::new();
    let each = |name: String| register(client.clone(), name);
    stream::iter(names.to_vec()).map(each).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let fakes = Fakes::default();
    let begin = Arc::new(Semaphore::new(AT_ONCE));
    running.spawn(follow(client.clone(), String::new(), fakes.all.clone(), begin.clone(), |_, _| {}));
    for (at, name) in names.iter().enumerate() {
        for side in ["source", "target"] {
            let fields = format!("spec.{side}.nodeName={name}");
            let mut half = Half { client: client.clone(), name: name.clone(), side, written: HashSet::new() };
            let take = move |task: &Value, gone| half.see(task, gone);
            running.spawn(follow(client.clone(), fields, fakes.agents.clone(), begin.clone(), take));
        }
        // Not all at the same moment.
        let period = Duration::from_secs(LEASE_RENEW_SECONDS.into());
        let first = period * u32::try_from(at)? / u32::try_from(names.len())?;
        running.spawn(renew(client.clone(), name.clone(), first, period));
    }
    let opened = async {
        let count = |counted: &Counted| counted.open.load(std::sync::atomic::Ordering::Relaxed);
        while count(&fakes.agents) < 2 * names.len() as u64 || count(&fakes.all) < 1 {
            tokio::time::sleep(Duration::from_millis(50)).await; // polls with a deadline
        }
    };
    tokio::time::timeout(LONGEST, opened).await.context("the watches do not open")?;
    Ok((fakes, running))
}

async fn register(client: Client, name: String) -> Result<()> {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 60, "renewTime": micro_time()},
    });
    leases(&client).create(&PostParams::default(), &serde_json::from_value(lease)?).await?;
    let nodes: Api<TransferNode> = Api::all(client);
    let node = json!({
        "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "TransferNode", "metadata": {"name": name}, "spec": {},
    });
    nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
    let status = json!({
        "instance": name,
        "agentVersion": "fake",
        "volumes": [{"name": "data", "readOnly": false, "capacity": 1_i64 << 40, "free": 1_i64 << 40,
                     "allowedNamespaces": ["*"]}],
        // Slots are not what is measured.
        "slots": {"total": 1_000_000},
        "conditions": [{"type": "Ready", "status": "True", "reason": "Succeeded", "message": "a fake agent",
                        "lastTransitionTime": jiff::Timestamp::now()}],
    });
    let patch = Patch::Merge(json!({"status": status}));
    nodes.patch_status(&name, &PatchParams::default(), &patch).await?;
    Ok(())
}

async fn renew(client: Client, name: String, first: Duration, period: Duration) {
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + first, period);
    loop {
        tick.tick().await;
        let patch = Patch::Merge(json!({"spec": {"renewTime": micro_time()}}));
        if let Err(error) = leases(&client).patch(&name, &PatchParams::default(), &patch).await {
            eprintln!("Lease of {name}: {error}");
        }
    }
}

fn leases(client: &Client) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "coordination.k8s.io".into(),
        version: "v1".into(),
        api_version: "coordination.k8s.io/v1".into(),
        kind: "Lease".into(),
        plural: "leases".into(),
    };
    Api::namespaced_with(client.clone(), devcluster::SYSTEM_NAMESPACE, &resource)
}

fn micro_time() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// One side of the tasks of one fake agent.
struct Half {
    client: Client,
    name: String,
    side: &'static str,
    /// Tasks and states: an event that was on its way when this was written shows the state before.
    written: HashSet<(String, &'static str)>,
}

impl Half {
    fn see(&mut self, task: &Value, gone: bool) {
        let Some(name) = task["metadata"]["name"].as_str() else { return };
        if gone {
            self.written.retain(|(written, _)| written != name);
            return;
        }
        let state = |side: &str| task["status"][side]["state"].as_str();
        let next = match state(self.side) {
            None => "Prepared",
            Some("Prepared") if ["source", "target"].iter().all(|side| state(side).is_some()) => "Succeeded",
            Some(_) => return,
        };
        if !self.written.insert((name.to_owned(), next)) {
            return;
        }
        let tasks: Api<TransferTask> = Api::namespaced(self.client.clone(), NAMESPACE);
        let (name, patch) = (name.to_owned(), Patch::Merge(json!({"status": {self.side: self.half(next)}})));
        // As a hop of its own would.
        tokio::spawn(async move {
            match tasks.patch_status(&name, &PatchParams::default(), &patch).await {
                Ok(_) => {}
                Err(kube::Error::Api(answer)) if answer.code == 404 => {}
                Err(error) => eprintln!("half of {name}: {error}"),
            }
        });
    }

    /// As long as a real one, and as true as it can be.
    fn half(&self, state: &str) -> Value {
        let prepared = state == "Prepared";
        let capability = prepared.then(|| format!("b64:{}", "x".repeat(CAPABILITY)));
        let (kind, status) = match (self.side, prepared) {
            ("source", true) => ("Write", "INIT"),
            ("source", false) => ("Write", "DONE"),
            (_, true) => ("Writable", "INIT"),
            (_, false) => ("Writable", "DONE"),
        };
        let mut half = json!({
            "state": state,
            "operation": {"kind": kind, "status": status},
            "worker": format!("{}-fake", self.name),
            "lastTransitionTime": jiff::Timestamp::now(),
        });
        half[if self.side == "source" { "agentMetadata" } else { "rdmaMetadata" }] = json!(capability);
        if self.side == "target" && !prepared {
            for count in ["bytesTotal", "bytesDone"] {
                half[count] = json!(1024);
            }
            for count in ["filesTotal", "filesDone"] {
                half[count] = json!(1);
            }
            half["digest"] = json!("xxh3:00000000000000000000000000000000");
            half["transport"] = json!({"backend": "UCX", "network": "tcp", "devices": ["fake0"], "direction": "Write",
                                       "fallbackReason": "NoRdmaDevice"});
        }
        half
    }
}
