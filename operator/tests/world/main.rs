//! What the world knows after what it was told: jobs that rest are packed, and nothing is missed because of it.

use std::time::Instant;

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use nixl_transfer_crds::{TransferJob, TransferTask, job::status::Phase};
use serde_json::{Value, json};
use transfer_operator::world::{Change, Clock, Observation, World};

const JOB: &str = "job-uid";

fn job(version: u64, trigger: &str, over: bool) -> TransferJob {
    let status = if over { "True" } else { "False" };
    let conditions = json!([{"type": "Complete", "status": status, "reason": "Succeeded", "message": "",
                             "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    from(json!({
        "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "TransferJob",
        "metadata": {"name": "job", "namespace": "ns", "uid": JOB, "resourceVersion": version.to_string()},
        "spec": {
            "source": {"node": {"name": "a"}, "volume": {"name": "v", "path": "from"}},
            "destinations": [{"name": "t", "node": {"name": "b"}, "volume": {"name": "v", "path": "to"}}],
            "trigger": trigger,
        },
        "status": {"run": 1, "phase": if over { "Complete" } else { "Preparing" }, "conditions": conditions},
    }))
}

fn task(version: u64) -> TransferTask {
    from(json!({
        "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "TransferTask",
        "metadata": {"name": "task", "namespace": "ns", "uid": "task-uid", "resourceVersion": version.to_string()},
        "spec": {
            "jobRef": {"name": "job", "uid": JOB}, "run": 1, "attempt": 0, "failures": 0, "direction": "Write",
            "source": {"nodeName": "a", "instance": "a", "volume": {"name": "v", "path": "from"}},
            "target": {"nodeName": "b", "nodeUID": "b", "instance": "b", "destination": "t",
                       "volume": {"name": "v", "path": "to"}},
            "transport": {}, "integrity": {}, "writePolicy": "SkipIdentical",
            "deadlines": {"pendingSeconds": 600, "progressSeconds": 120},
        },
        "status": {"source": {"state": "Succeeded"}, "target": {"state": "Succeeded", "digest": "xxh3:0"}},
    }))
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn tell(world: &mut World, observation: Observation) {
    let time = "2026-01-01T00:00:00Z".parse().unwrap();
    world.observe(observation, Clock { instant: Instant::now(), time });
}

/// A job that is over and its task, packed.
fn resting() -> World {
    let mut world = World::default();
    tell(&mut world, Observation::Job(Change::Put(job(5, "", true))));
    tell(&mut world, Observation::Task(Change::Put(task(4))));
    world.take_dirty();
    assert!(world.rest(JOB));
    world
}

fn phases(world: &World) -> Vec<(&str, Phase, usize)> {
    world.phases().collect()
}

#[test]
fn a_resting_job_and_its_task_are_still_known() {
    let world = resting();
    assert_eq!(world.job(JOB).as_deref(), Some(&job(5, "", true)));
    assert_eq!(world.tasks_of(JOB).iter().map(AsRef::as_ref).collect::<Vec<_>>(), [&task(4)]);
    assert_eq!(phases(&world), [("ns", Phase::Complete, 1)]);
    assert_eq!((world.job_count(), world.open_count()), (1, 0));
}

#[test]
fn a_changed_spec_of_a_resting_job_is_seen_and_an_old_event_is_not() {
    let mut world = resting();
    tell(&mut world, Observation::Job(Change::Put(job(3, "old", false))));
    tell(&mut world, Observation::Job(Change::Put(job(5, "", true))));
    tell(&mut world, Observation::Task(Change::Put(task(4))));
    assert!(world.take_dirty().is_empty());
    tell(&mut world, Observation::Job(Change::Put(job(6, "again", true))));
    assert!(world.take_dirty().contains(JOB));
    assert_eq!(world.job(JOB).unwrap().spec.trigger, "again");
    tell(&mut world, Observation::Job(Change::Put(job(7, "again", false))));
    assert_eq!(phases(&world), [("ns", Phase::Preparing, 1)]);
    assert_eq!(world.open_jobs().count(), 1);
    assert!(!world.rest(JOB), "one that is under way does not rest");
}

#[test]
fn what_vanished_while_it_rested_is_forgotten() {
    let mut world = resting();
    tell(&mut world, Observation::Task(Change::All(vec![], "9".into())));
    assert!(world.tasks_of(JOB).is_empty());
    assert!(world.take_dirty().contains(JOB));
    tell(&mut world, Observation::Job(Change::All(vec![], "4".into())));
    assert!(world.has_job(JOB), "it is newer than the list");
    tell(&mut world, Observation::Job(Change::All(vec![], "9".into())));
    assert!(!world.has_job(JOB) && phases(&world).is_empty());
}

#[test]
fn a_packed_task_that_is_deleted_is_gone() {
    let mut world = resting();
    let gone = Box::new(task(8).metadata);
    tell(&mut world, Observation::Task(Change::Gone(gone)));
    assert!(world.tasks_of(JOB).is_empty());
    assert!(world.take_dirty().contains(JOB));
    tell(&mut world, Observation::Task(Change::Put(task(7))));
    assert!(world.tasks_of(JOB).is_empty(), "a late answer brings nothing back");
}

#[test]
fn one_that_begins_to_lead_plans_every_job_and_every_task_without_one() {
    let mut world = resting();
    let mut orphan = task(9);
    orphan.metadata.name = Some("orphan".into());
    orphan.metadata.uid = Some("orphan-uid".into());
    orphan.spec.job_ref.uid = "vanished".into();
    tell(&mut world, Observation::Task(Change::Put(orphan)));
    world.take_dirty();
    world.touch_all();
    assert_eq!(world.take_dirty(), [JOB, "vanished"].map(str::to_string).into());
}

#[test]
fn the_operators_own_lease_is_no_nodes() {
    let lease = |name: &str| -> Lease {
        from(json!({"metadata": {"name": name, "resourceVersion": "1"}, "spec": {"holderIdentity": "x"}}))
    };
    let mut world = World::default();
    let listed = vec![lease("nixl-transfer-operator"), lease("a")];
    tell(&mut world, Observation::Lease(Change::All(listed, "1".into())));
    tell(&mut world, Observation::Lease(Change::Put(lease("nixl-transfer-operator"))));
    assert_eq!(world.cluster.nodes.keys().collect::<Vec<_>>(), ["a"]);
}

fn node(name: &str, labels: Value) -> Node {
    from(json!({"metadata": {"name": name, "uid": name, "labels": labels, "resourceVersion": "1"}}))
}

#[test]
fn one_that_follows_is_planned_when_a_node_changes_and_others_at_rest_are_not() {
    for (follow, planned) in [(false, false), (true, true)] {
        let mut world = World::default();
        let mut over = job(5, "", true);
        over.spec.follow = follow;
        tell(&mut world, Observation::Job(Change::Put(over)));
        world.take_dirty();
        assert_eq!((world.open_count(), world.rest(JOB)), (0, true), "it rests until then");
        tell(&mut world, Observation::Node(Change::Put(node("b", json!({})))));
        assert_eq!(world.take_dirty().contains(JOB), planned, "follow: {follow}");
    }
}

#[test]
fn a_label_is_its_jobs_or_is_planned_by_itself() {
    const KEY: &str = "data.nixl-transfer.io/ns.job";
    let (mut world, labelled) = (World::default(), || node("b", json!({KEY: "ready", "role": "x"})));
    let mut labeller = job(5, "", true);
    labeller.spec.label_nodes = true;
    // As after a start: nodes first, then jobs.
    tell(&mut world, Observation::Node(Change::Put(labelled())));
    assert!(world.take_dirty().contains(KEY) && !world.is_wanted(KEY));
    tell(&mut world, Observation::Job(Change::Put(labeller.clone())));
    assert!(world.is_wanted(KEY));
    world.take_dirty();
    // Somebody takes it off.
    tell(&mut world, Observation::Node(Change::Put(node("b", json!({"role": "x"})))));
    assert_eq!(world.take_dirty(), [JOB.to_owned()].into());
    tell(&mut world, Observation::Node(Change::Put(labelled())));
    world.take_dirty();
    // The job goes, and another of its name has come already: the label is that one's.
    let mut other = job(6, "", false);
    (other.metadata.uid, other.spec.label_nodes) = (Some("other".into()), true);
    tell(&mut world, Observation::Job(Change::Put(other.clone())));
    tell(&mut world, Observation::Job(Change::Gone(Box::new(labeller.metadata))));
    assert!(world.is_wanted(KEY) && !world.take_dirty().contains(KEY));
    tell(&mut world, Observation::Job(Change::Gone(Box::new(other.metadata))));
    assert!(!world.is_wanted(KEY) && world.take_dirty().contains(KEY));
}

#[test]
fn a_job_that_others_manage_is_not_known() {
    let mut world = World::default();
    let mut theirs = job(5, "", false);
    theirs.spec.managed_by = Some("kueue.x-k8s.io/multikueue".into());
    tell(&mut world, Observation::Job(Change::Put(theirs)));
    assert!(world.take_dirty().is_empty() && !world.has_job(JOB) && phases(&world).is_empty());
}
