//! Jobs that follow what nodes there are, and the labels of nodes that hold data.

use nixl_transfer_crds::{
    TransferJob, condition,
    job::status::Phase,
    names::{NODE_LABEL_VALUE, node_label},
};
use serde_json::{Value, json};
use transfer_operator::{
    cluster::Liveness,
    plan::{Action, plan_unwanted},
};

use crate::model::{Behaviour, World, at, catch_up, everywhere, job, redirect};

fn following(destinations: Value) -> TransferJob {
    let mut job = job(destinations);
    job.spec.follow = true;
    job
}

fn desired(world: &World) -> (i64, i64) {
    let nodes = world.status().nodes.unwrap();
    (nodes.desired, nodes.succeeded)
}

#[test]
fn a_node_that_comes_later_or_comes_back_gets_its_copy_and_complete_stays() {
    let mut world = World::new(following(json!([everywhere("all", "to")])));
    world.settle();
    assert!(world.is(condition::READY) && world.is(condition::COMPLETE));
    assert_eq!(desired(&world), (3, 3));
    let completed = world.status().completion_time;

    world.join("d");
    world.operate(usize::MAX);
    assert!(!world.is(condition::READY) && world.is(condition::RECONCILING) && world.is(condition::COMPLETE));
    world.settle();
    assert!(world.is(condition::READY) && !world.is(condition::RECONCILING));
    assert_eq!(desired(&world), (4, 4));

    // It leaves: no failure, and nothing stays of it.
    world.cluster.nodes.remove("d");
    world.settle();
    assert!(world.is(condition::READY) && world.tasks.values().all(|task| task.spec.target.node_name != "d"));
    assert_eq!(desired(&world), (3, 3));
    // Under its old name it is another node.
    world.join("d");
    world.settle();
    let of_d = world.tasks.values().filter(|task| task.spec.target.node_name == "d").collect::<Vec<_>>();
    assert_eq!(Some(&of_d[0].spec.target.node_uid), world.cluster.nodes["d"].uid.as_ref());
    assert_eq!((of_d.len(), world.status().run), (1, 1));
    assert_eq!(world.status().completion_time, completed, "it was complete then");
    assert_eq!(world.status().phase, Some(Phase::Complete));
    world.pass(86_400);
    assert!(world.plan().is_empty(), "nothing to say: {:#?}", world.plan());
}

#[test]
fn where_no_node_matches_it_is_ready_and_one_that_leaves_on_its_way_is_no_failure() {
    for destinations in [json!([everywhere("all", "to")]), json!([at("one", "b")])] {
        let mut world = World::with(following(destinations), &[]);
        world.settle();
        assert!(world.is(condition::READY) && world.is(condition::COMPLETE));
        world.join("a");
        world.join("b");
        catch_up(&mut world);
        assert!(world.is(condition::RECONCILING) && !world.tasks.is_empty());
        world.agents(true);
        world.cluster.nodes.remove("b");
        world.settle();
        assert!(world.is(condition::READY) && !world.is(condition::FAILED), "{:#?}", world.log);
        assert!(world.tasks.values().all(|task| task.spec.target.node_name != "b"));
    }
    let mut alone = World::with(following(json!([everywhere("all", "from")])), &["a"]);
    alone.settle();
    assert!(alone.is(condition::READY) && alone.tasks.is_empty(), "the source's node has the data");
}

#[test]
fn a_node_may_wait_for_its_agent_as_long_as_any_and_one_given_up_keeps_no_other_waiting() {
    let mut world = World::new(following(json!([everywhere("all", "to")])));
    world.settle();
    // Long after, a node joins whose agent comes later still.
    world.pass(100_000);
    world.join("d");
    world.cluster.nodes.get_mut("d").unwrap().lease = Liveness::Unproven;
    catch_up(&mut world);
    world.pass(599);
    catch_up(&mut world);
    assert!(world.is(condition::RECONCILING), "too early");
    world.pass(1);
    catch_up(&mut world);
    assert!(world.is(condition::STALLED) && world.is(condition::COMPLETE));
    assert_eq!(world.reason(), "DeadlineExceeded");
    // Another one is served all the same; and the first, when its agent has come.
    world.join("e");
    world.settle();
    assert_eq!(desired(&world), (5, 4));
    assert!(world.is(condition::STALLED));
    world.find("d", false);
    world.settle();
    assert!(world.is(condition::READY) && !world.is(condition::STALLED));

    // One that fails for good is replaced by another.
    world.behaviour.insert("f".into(), Behaviour::Fails("InvalidPath"));
    world.join("f");
    world.settle();
    assert!(world.is(condition::FAILED) && !world.is(condition::READY));
    assert!(world.plan().is_empty());
    world.behaviour.insert("f".into(), Behaviour::Works);
    world.cluster.nodes.remove("f");
    world.join("f");
    world.settle();
    assert!(world.is(condition::READY) && !world.is(condition::FAILED));
}

#[test]
fn suspended_it_follows_nothing_and_no_longer_following_it_is_over() {
    let mut world = World::new(following(json!([everywhere("all", "to")])));
    world.settle();
    world.edit(|job| job.spec.suspend = true);
    world.settle();
    assert!(world.is(condition::SUSPENDED) && !world.is(condition::READY) && world.is(condition::COMPLETE));
    let before = world.tasks.len();
    world.join("d");
    world.settle();
    assert_eq!(world.tasks.len(), before);
    world.edit(|job| job.spec.suspend = false);
    world.settle();
    assert!(world.is(condition::READY));
    assert_eq!(desired(&world), (4, 4));

    // In the middle of a copy: that one is still waited for.
    world.join("e");
    catch_up(&mut world);
    world.edit(|job| job.spec.follow = false);
    world.settle();
    assert!(world.is(condition::READY));
    assert_eq!(desired(&world), (5, 5));
    world.join("f");
    world.settle();
    assert_eq!(desired(&world), (5, 5));
}

fn labelled(world: &World) -> Vec<String> {
    let key = node_label("ns", "job");
    let has = |(name, view): (&String, &transfer_operator::cluster::NodeView)| {
        view.labels.get(&key).map(|value| {
            assert_eq!(value, NODE_LABEL_VALUE);
            name.clone()
        })
    };
    world.cluster.nodes.iter().filter_map(has).collect()
}

#[test]
fn exactly_the_nodes_that_hold_the_data_are_labelled() {
    // Two destinations: a node needs what both bring.
    let mut job = job(json!([everywhere("all", "to"), at("more", "b")]));
    job.spec.label_nodes = true;
    job.spec.destinations[1].place = serde_json::from_value::<nixl_transfer_crds::endpoint::Destination>(
        json!({"name": "x", "node": {"name": "b"}, "volume": {"name": "v", "path": "other"}}),
    )
    .unwrap()
    .place;
    let mut world = World::new(job);
    world.settle();
    assert!(world.is(condition::COMPLETE));
    assert_eq!(labelled(&world), ["a", "b", "c"]);
    assert_eq!(world.status().node_label.as_deref(), Some("data.nixl-transfer.io/ns.job"));

    // Somebody takes one off; a node comes back as another one of its name.
    let key = node_label("ns", "job");
    world.cluster.nodes.get_mut("b").unwrap().labels.remove(&key);
    world.cluster.nodes.remove("c");
    world.join("c");
    world.settle();
    assert_eq!(labelled(&world), ["a", "b"], "the new c has nothing");

    // Another run of other content: all labels go in the plan that begins it.
    world.edit(|job| redirect(job, |_| "elsewhere".into()));
    let plan = world.plan();
    let goes = |action: &&Action| matches!(action, Action::Label(label) if !label.holds);
    assert_eq!(plan.actions.iter().filter(goes).count(), 2);
    world.behaviour.insert("c".into(), Behaviour::Fails("InvalidPath"));
    world.settle();
    assert!(world.is(condition::FAILED));
    assert_eq!(labelled(&world), ["a", "b"], "what failed on one node does not take it from the others");

    // The job is gone, and was not seen to go: its labels are found by their key.
    world.job = None;
    for action in plan_unwanted(&key, &world.cluster).actions {
        world.write(action);
    }
    assert!(labelled(&world).is_empty());
}

#[test]
fn a_job_that_asks_for_labels_where_there_are_none_fails_at_once_and_says_so() {
    for follow in [false, true] {
        let mut job = job(json!([everywhere("all", "to")]));
        (job.spec.label_nodes, job.spec.follow) = (true, follow);
        let mut world = World::with(job, if follow { &[] } else { &["a", "b"] });
        world.label_nodes = false;
        world.settle();
        assert!(world.is(condition::FAILED) && world.tasks.is_empty());
        assert_eq!((world.reason().as_str(), world.status().node_label), ("InvalidSpec", None));
        let message = condition::find(&world.status().conditions, condition::READY).unwrap().message.clone();
        assert!(message.contains("operator.labelNodes"), "{message}");
    }
}
